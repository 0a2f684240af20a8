"""What tests share: graphs, checks of scales, oracles, and commands."""
