"""Scoring on labelled images: episodes, measures, the evaluator and its report."""
