from tests.eval.plugin import point_suite

__all__ = ["point_suite"]
