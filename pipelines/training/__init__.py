"""What stage `train` needs beside the loop: given weights, several seeds, numbered runs."""
