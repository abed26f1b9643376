"""The texts by which vision-language models know the Meta-World tasks."""

from prefvlm_core.common.errors import PrefVLMError
from prefvlm_core.domains.tasks import check_task

TASK_TEXTS: dict[str, str] = {
    "assembly-v3": "pick up a ring by its handle and put it on the peg",
    "basketball-v3": "pick up the ball and dunk it into the basket",
    "bin-picking-v3": "move the cube from one bin to the other bin",
    "box-close-v3": "pick up the lid and close the box with it",
    "button-press-topdown-v3": "press a button from the top",
    "button-press-topdown-wall-v3": "reach over the wall and press a button from the top",
    "button-press-v3": "press a button",
    "button-press-wall-v3": "reach around the wall and press a button",
    "coffee-button-v3": "press the button of the coffee machine",
    "coffee-pull-v3": "pull the mug away from the coffee machine",
    "coffee-push-v3": "push the mug under the coffee machine",
    "dial-turn-v3": "turn the dial",
    "disassemble-v3": "pick up the ring and take it off the peg",
    "door-close-v3": "push and close a door with a revolving joint",
    "door-lock-v3": "lock the door by turning the lock clockwise",
    "door-open-v3": "open a door with a revolving joint",
    "door-unlock-v3": "unlock the door by turning the lock counterclockwise",
    "hand-insert-v3": "put the gripper into the hole",
    "drawer-close-v3": "push and close a drawer",
    "drawer-open-v3": "open a drawer",
    "faucet-open-v3": "turn the faucet counterclockwise to open it",
    "faucet-close-v3": "turn the faucet clockwise to close it",
    "hammer-v3": "hit the nail with the hammer",
    "handle-press-side-v3": "press the handle down from the side",
    "handle-press-v3": "press the handle down",
    "handle-pull-side-v3": "pull the handle up from the side",
    "handle-pull-v3": "pull the handle up",
    "lever-pull-v3": "pull the lever up",
    "pick-place-wall-v3": "pick up the puck and place it behind the wall",
    "pick-out-of-hole-v3": "pick the puck out of the hole",
    "reach-v3": "reach the goal with the gripper",
    "push-back-v3": "pull the cube back to the goal",
    "push-v3": "push the puck to the goal",
    "pick-place-v3": "pick up the puck and place it at the goal",
    "plate-slide-v3": "slide the plate into the cabinet",
    "plate-slide-side-v3": "slide the plate into the cabinet from the side",
    "plate-slide-back-v3": "slide the plate out of the cabinet",
    "plate-slide-back-side-v3": "slide the plate out of the cabinet from the side",
    "peg-insert-side-v3": "insert the peg into the hole from the side",
    "peg-unplug-side-v3": "pull the peg out of the socket from the side",
    "soccer-v3": "push the ball into the soccer goal",
    "stick-push-v3": "push the thermos with the stick",
    "stick-pull-v3": "pull the thermos with the stick",
    "push-wall-v3": "push the puck around the wall to the goal",
    "reach-wall-v3": "reach around the wall to the goal with the gripper",
    "shelf-place-v3": "pick up the cube and place it on the shelf",
    "sweep-into-v3": "sweep the cube into the hole",
    "sweep-v3": "sweep the cube off the table",
    "window-open-v3": "push and open a window",
    "window-close-v3": "push and close a window",
}
"""The built-in text of each task.

The texts that PrefVLM gave its model are not published. FuRL (ICML 2024), an earlier use of LIV on Meta-World, names
those of the tasks in `PUBLISHED`, which are used here; the others are written in the same style."""

PUBLISHED = (
    "button-press-topdown-v3",
    "door-open-v3",
    "drawer-close-v3",
    "drawer-open-v3",
    "window-close-v3",
    "window-open-v3",
)


_registered: dict[str, str] = {}


def task_text(task: str) -> str:
    """The text of a task: the one registered in this process, else the built-in one.

    Raises `PrefVLMError` for an unknown task.
    """
    check_task(task)
    return _registered.get(task, TASK_TEXTS[task])


def register_task_text(task: str, text: str) -> None:
    """Use `text` for a task in the rest of this process, in place of the built-in text or of an earlier registration.

    The text is not part of a run's name: give runs with another text a results folder of their own.

    Raises `PrefVLMError` for an unknown task or an empty text.
    """
    check_task(task)
    if not text.strip():
        raise PrefVLMError(f"The text of '{task}' is empty; a vision-language model needs a description.")
    _registered[task] = text
