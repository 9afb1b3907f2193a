"""A checkpoint as ONNX graphs, their configurations and their checks: `export_onnx` of export.py."""

if __name__ != "pocketvlm.export.onnx":
    raise ImportError(
        f"this folder is the package pocketvlm.export.onnx, not {__name__}: install pocketvlm and import that"
    )
