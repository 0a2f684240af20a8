"""What people look at: tables for the terminal."""

from onnxnorm.report.tables import layer_table, plan_tables

__all__ = ["layer_table", "plan_tables"]
