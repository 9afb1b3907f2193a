"""Export: checkpoints in, model files out. Nothing here is imported by the runtime."""

if __name__ != "pocketvlm.export":
    raise ImportError(
        f"this folder is the package pocketvlm.export, not {__name__}: install pocketvlm and import that"
    )

__all__: list[str] = []
