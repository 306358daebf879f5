"""How an adapter acts: on a denoiser, in the calls of its pipelines, in a guider's place."""
