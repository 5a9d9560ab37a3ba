"""Visual prompting: what is learned at the input of a frozen network, and how its classes are read as those of a task."""

from vpcore.faces import face

__all__, __getattr__, __dir__ = face(
    __name__,
    {
        "label_mapping": "MAPPINGS",
        "fixed_prompts": "Prompt",
        "prompts": "PROMPTS",
        "visual_prompting": "Prompted visual_prompt",
    },
)
