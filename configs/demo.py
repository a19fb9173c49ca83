"""The demo: a tiny ViT-DPT on the synthetic `shapes` set; two CPU cores, a few minutes, no download.

make demo
"""

from configs import defaults


def get_config():
    config = defaults.get_config()
    config.model.encoder = "vit_tiny"
    config.model.embedding_dim = 64
    config.model.decoder_width = 24
    config.model.dtype = "float32"
    config.text.tower = "runs/demo/text_tower"  # written by demo.py
    config.loss.shape_weight = 0.3
    config.loss.bce_weight = 0.3
    config.loss.affine_mlp = "runs/demo/affine"  # trained by demo.py
    config.loss.patches = (2, 2)
    config.data.dataset = "shapes"
    config.data.fold = 1
    config.data.crop = 64
    config.data.batch_size = 16
    config.data.scale = (0.8, 1.25)
    config.data.rotation = 0.0
    config.data.jitter = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1.5e-3
    config.optimizer.decoder_multiplier = 1.0
    config.optimizer.weight_decay = 1e-2
    config.optimizer.schedule = "one_cycle"
    config.optimizer.warmup = 0.1
    config.optimizer.clip_norm = 1.0
    config.spectral.features = "embeddings"
    config.spectral.grid = 16
    config.spectral.color_weight = 1.0
    config.spectral.solver = "subspace"
    config.train.num_steps = 400
    config.train.eval_every = 400
    config.train.save_every = 200
    config.train.image_every = 400
    config.eval.resize = 128  # of 64, 128 and 256 the best on the selection images: at 64 the outlines are coarse
    return config
