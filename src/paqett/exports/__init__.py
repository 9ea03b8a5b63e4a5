"""Export All My Data: what was asked for, what an archive holds, and how it is written."""
