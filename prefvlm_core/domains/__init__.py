"""The worlds in which agents act: tasks, environments, their worker processes, experts and rendered frames."""

from prefvlm_core.domains.gl import put_aside_what_stops_mujoco

put_aside_what_stops_mujoco()  # before any module of this room imports MuJoCo
