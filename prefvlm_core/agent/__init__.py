"""The agent: networks, replay, soft actor-critic, exploration and evaluation."""
