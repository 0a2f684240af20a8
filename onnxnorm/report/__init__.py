"""What people look at: tables for the terminal."""

from onnxnorm.report.fp16 import fp16_tables
from onnxnorm.report.tables import layer_table, plan_tables

__all__ = ["fp16_tables", "layer_table", "plan_tables"]
