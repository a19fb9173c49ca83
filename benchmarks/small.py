"""The form in which a benchmark runs on a few CPU cores."""

from ml_collections import ConfigDict

BATCH = 2
_ENCODERS = {"vit_l16": "vit_s16", "vit_b16": "vit_s16", "drn_d_105": "drn_d_22"}


def make_small(config: ConfigDict) -> None:
    """Cut a config down to what two CPU cores do in seconds."""
    encoder = config.model.encoder
    config.model.encoder = _ENCODERS.get(encoder, encoder)
    config.model.decoder_width = min(config.model.decoder_width, 128)
    config.model.dtype = "float32"
    config.data.crop = min(config.data.crop, 160)
    config.data.batch_size = config.eval.batch_size = BATCH
