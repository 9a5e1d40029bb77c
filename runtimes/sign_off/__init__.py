"""What an engine must show before it may fly: accuracy against its source, known answers, memory figures."""
