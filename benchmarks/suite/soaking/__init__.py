"""What a long run consists of: work that goes on beside the load, samples, and what they say."""
