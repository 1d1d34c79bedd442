"""Worlds: generators and readers of episodes of chunks of frames with actions; numpy only."""
