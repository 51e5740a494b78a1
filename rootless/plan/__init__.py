"""Pure planning: a checked bundle, facts about the host and the caller's options become a Plan. Touches nothing."""
