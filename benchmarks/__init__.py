"""What the framework costs: CPU seconds, memory, and ratios to floors measured in the same process."""
