"""What PA-GRPO computes, as pure functions: segment masks, rewards, advantages, losses."""
