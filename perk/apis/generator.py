"""API documents made to order: models with invented names, each for one task on one kind of input.

`generate` is a pure function of its arguments. Publishers belong to the split that their digest falls to, so no two
splits share an API.
"""

import random

from common.data.splits import belongs
from perk.apis.documents import Api, document_of

TASKS = {
    "Audio Classification": ("AutoModelForAudioClassification", "classify recordings of {}"),
    "Document Question Answering": ("AutoModelForDocumentQuestionAnswering", "answer questions about scans of {}"),
    "Feature Extraction": ("AutoModel", "extract features from texts about {}"),
    "Fill Mask": ("AutoModelForMaskedLM", "fill in missing words in reports on {}"),
    "Image Captioning": ("AutoModelForVision2Seq", "describe photographs of {} in a sentence"),
    "Image Classification": ("AutoModelForImageClassification", "recognise pictures of {}"),
    "Image Segmentation": ("AutoModelForImageSegmentation", "outline {} in aerial images"),
    "Named Entity Recognition": ("AutoModelForTokenClassification", "find names in articles about {}"),
    "Object Detection": ("AutoModelForObjectDetection", "locate {} in street scenes"),
    "Sentiment Analysis": ("AutoModelForSequenceClassification", "tell whether reviews of {} are kind"),
    "Speech Recognition": ("AutoModelForSpeechSeq2Seq", "write down talks about {}"),
    "Summarization": ("AutoModelForSeq2SeqLM", "shorten long articles about {}"),
    "Table Question Answering": ("AutoModelForTableQuestionAnswering", "look up figures in tables on {}"),
    "Text Generation": ("AutoModelForCausalLM", "write stories about {}"),
    "Video Classification": ("AutoModelForVideoClassification", "sort clips of {}"),
    "Zero-Shot Classification": ("AutoModelForZeroShot", "sort letters about {} without examples"),
}
SUBJECTS = ("aeroplanes", "bicycles", "birds", "bridges", "bread", "butterflies", "castles", "cattle", "clouds",
            "coffee", "concerts", "crops", "elections", "engines", "fabrics", "farms", "ferries", "fish", "forests",
            "furniture", "glaciers", "hospitals", "insurance", "lighthouses", "medicines", "minerals", "mushrooms",
            "orchids", "pottery", "railways", "restaurants", "satellites", "sculptures", "storms", "tractors",
            "trams", "vineyards", "volcanoes", "whales", "windmills")  # fmt: skip
SIZES = ("tiny", "small", "base", "large", "xl")
SYLLABLES = ("ba", "cor", "da", "el", "fen", "go", "hal", "in", "ka", "lum", "mo", "nor", "ol", "pa", "ri", "sol",
             "tu", "vel", "wo", "zen")  # fmt: skip
REQUESTS = (
    "Write an API implementation that can {}.",
    "Find an API that is able to {}.",
    "We would like to {}. Which API should be loaded?",
    "I need code that will {} for my company.",
)
MOST = len(TASKS) * len(SUBJECTS)
"""APIs in one context: no two are for the same task and subject."""


def generate(seed: int, split: str, index: int, count: int) -> tuple[str, list[Api]]:
    """Instruction number `index` of a split, and `count` APIs of which the first alone answers it.

    Raises:
        ValueError: more than MOST APIs.
    """
    rng = random.Random(f"{seed}/{split}/{index}/apis")
    pairs = [(task, subject) for task in TASKS for subject in SUBJECTS]
    if count > len(pairs):
        raise ValueError(f"{count} APIs asked for, {MOST} are different")
    chosen = rng.sample(pairs, count)
    task, subject = chosen[0]
    request = rng.choice(REQUESTS).format(TASKS[task][1].format(subject))
    return f"Instruction: {request}", [_api(task, subject, split, rng) for task, subject in chosen]


def _api(task: str, subject: str, split: str, rng: random.Random) -> Api:
    while not belongs(publisher := "".join(rng.choices(SYLLABLES, k=3)), split):
        pass
    loader, purpose = TASKS[task]
    name = f"{publisher}/{''.join(rng.choices(SYLLABLES, k=2))}-{subject}-{rng.choice(SIZES)}"
    call = f"{loader}.from_pretrained('{name}')"
    data = {
        "domain": task.split()[-1],
        "framework": "Hugging Face Transformers",
        "functionality": task,
        "api_name": name,
        "api_arguments": rng.choice((["inputs"], ["inputs", "max_length"], "N/A")),
        "python_environment_requirements": rng.choice((["transformers"], ["transformers", "torch"])),
        "example_code": f"model = {call}",
        "performance": {"dataset": f"{publisher} {subject}", "accuracy": f"0.{rng.randint(600, 989)}"},
        "description": f"A model to {purpose.format(subject)}.",
    }
    return Api(call, document_of(call, data))
