"""GenEval's rules on detections: what counts, what is correct, what the numbers are."""
