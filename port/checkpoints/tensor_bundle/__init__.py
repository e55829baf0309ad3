"""TensorFlow's tensor-bundle format: tables, blocks and messages, byte by byte."""
