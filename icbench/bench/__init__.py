"""What `icbench bench` measures."""
