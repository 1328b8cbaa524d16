"""What is measured inside a network, one probe a file; icbench/probing/ is what they share."""
