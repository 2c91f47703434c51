"""Which decoder? Variants beside the default, each trained alike on the same pairs and scored on held-out photos.

    python bench/decoders.py PAIRS OUT [--epochs 8] [--seeds 0] [--only default,method]

Each run leaves OUT/<variant>-<seed>.json, so a second call does only what is missing; the table at the end is made from what is
there. Blocks, heads and losses that did not earn a place in the package are defined here.
"""
import os; os.environ.setdefault('TQDM_DISABLE', '1')
import time
from copy import deepcopy
from functools import partial
from pathlib import Path
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from fastcore.script import call_parse
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
from dinoinv.core import load_json, save_json
from dinoinv.dataset import PairsDataset
from dinoinv.decoder import Decoder
from dinoinv.features import amp_dtype, encoder_line
from dinoinv.train import PRESETS, TrainConfig, average, fit_probes, load_batches, load_probes, make_optimizer, predict, validate
from dinoinv.inference import bootstrap_ci

# ---- blocks and heads that were tried ----

class ConvNeXtBlock(nn.Module):
    "Depthwise 7×7, then two 1×1 over four times the width"
    def __init__(self, width):
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(width, width, 7, padding=3, groups=width), nn.GroupNorm(1, width), nn.Conv2d(width, 4*width, 1), nn.GELU(), nn.Conv2d(4*width, width, 1))
        self.gain = nn.Parameter(torch.zeros(width,1,1))
    def forward(self, x): return x + self.gain*self.f(x)

class AttentionBlock(nn.Module):
    "Attention among all tokens, then an MLP"
    def __init__(self, width, heads=4):
        super().__init__()
        self.heads = heads
        self.n1,self.n2 = nn.GroupNorm(1, width),nn.GroupNorm(1, width)
        self.qkv,self.proj = nn.Conv2d(width, 3*width, 1),nn.Conv2d(width, width, 1)
        self.mlp = nn.Sequential(nn.Conv2d(width, 4*width, 1), nn.GELU(), nn.Conv2d(4*width, width, 1))
        self.g1,self.g2 = (nn.Parameter(torch.zeros(width,1,1)) for _ in range(2))
    def forward(self, x):
        b,c,h,w = x.shape
        q,k,v = (o.reshape(b, self.heads, -1, h*w).mT for o in self.qkv(self.n1(x)).chunk(3, 1))
        x = x + self.g1*self.proj(F.scaled_dot_product_attention(q, k, v).mT.reshape(b, c, h, w))
        return x + self.g2*self.mlp(self.n2(x))

class Progressive(nn.Module):
    "Twice the grid by pixel shuffle, a 3×3 convolution there, then all pixels: in place of the one 3×3 convolution at token resolution"
    def __init__(self, width, unit, mid=48):
        super().__init__()
        self.up = nn.Sequential(nn.Conv2d(width, 4*mid, 1), nn.PixelShuffle(2), nn.GELU(), nn.Conv2d(mid, mid, 3, padding=1), nn.GELU())
        self.last = nn.Conv2d(mid, 3*(unit//2)**2, 3, padding=1)
        nn.init.zeros_(self.last.weight); nn.init.zeros_(self.last.bias)
        self.unit = unit
    def forward(self, x): return F.pixel_unshuffle(F.pixel_shuffle(self.last(self.up(x)), self.unit//2), self.unit)

class Refiner(nn.Module):
    "A few 3×3 convolutions on the decoded picture, at half its resolution, added to it: they see what the token grid cuts apart"
    def __init__(self, width=32, depth=3):
        super().__init__()
        dims = [12] + [width]*depth
        layers = [o for a,b in zip(dims, dims[1:]) for o in (nn.Conv2d(a, b, 3, padding=1), nn.GELU())]
        self.net = nn.Sequential(nn.PixelUnshuffle(2), *layers, nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))
        nn.init.zeros_(self.net[-2].weight); nn.init.zeros_(self.net[-2].bias)
    def forward(self, x): return x + self.net(x)

def refined(**k):
    "The default decoder with a `Refiner` behind it"
    d = Decoder(**k); d.upsample = nn.Sequential(d.upsample, Refiner())
    return d

def trunk(block, n):
    "The default decoder with other blocks"
    def make(**k):
        d = Decoder(**k)
        d.blocks = nn.Sequential(*[block(d.stem[0].out_channels) for _ in range(n)])
        return d
    return make

def progressive(**k):
    "The default decoder with a `Progressive` head"
    d = Decoder(**k); d.out = Progressive(d.stem[0].out_channels, d.unit)
    return d

# ---- losses ----

def l1(p, t): return (p-t).abs().mean()
def charbonnier(p, t): return ((p-t).square()+1e-6).sqrt().mean()
def l1_ssim(p, t): return .9*l1(p, t) + .1*(1-ssim(p, t, data_range=1.))
def mse(p, t): return 10*F.mse_loss(p, t)

# ---- the variants: name → (decoder, settings), and what starts them ----

S = TrainConfig()
VARIANTS = {
    'method':            (partial(Decoder, head='bilinear'), PRESETS['method'], {}),
    'subpixel':          (partial(Decoder, shortcut=False), S, {}),
    'linear start':      (partial(Decoder, products=0, gates=0), S, dict(start='linear_probe')),
    'quadratic start':   (partial(Decoder, gates=0), S, {}),
    'default':           (Decoder, S, {}),
    'no trunk':          (partial(Decoder, blocks=0), S, {}),
    '6 gates':           (partial(Decoder, gates=6), S, {}),
    '5 blocks':          (partial(Decoder, blocks=5), S, {}),
    'width 96':          (partial(Decoder, width=96), S, {}),
    'dilation 1':        (partial(Decoder, dilations=(1,)), S, {}),
    'dilations 1 2 4':   (partial(Decoder, dilations=(1,2,4)), S, {}),
    'ConvNeXt':          (trunk(ConvNeXtBlock, 6), S, {}),
    'attention':         (trunk(AttentionBlock, 6), S, {}),
    'progressive head':  (progressive, S, {}),
    'refiner':           (refined, S, {}),
    'EMA':               (Decoder, S, dict(ema=.98)),
    'Charbonnier':       (Decoder, S, dict(loss=charbonnier)),
    'L1 + 0.1 SSIM':     (Decoder, S, dict(loss=l1_ssim)),
    'MSE':               (Decoder, S, dict(loss=mse)),
}

def train(model, ds, cfg, epochs, loss=l1, ema=None):
    "Train as `dinoinv.train` does, on one process; returns the model, or its moving average, and CPU seconds an epoch"
    model = model.to(memory_format=torch.channels_last).train()
    opt,sched = make_optimizer(model, cfg, epochs*-(-len(ds)//cfg.batch_size))
    dtype,avg,start = amp_dtype('cpu'),deepcopy(model) if ema else None,time.process_time()
    for ds.epoch in range(1, epochs+1):
        for b in load_batches(ds, cfg.batch_size, True):
            with torch.autocast('cpu', dtype=dtype, enabled=dtype is not None): pred = predict(model, b)
            value = loss(pred, b['target'])
            value.backward()
            if cfg.clip: nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
            opt.step(); opt.zero_grad(); sched.step()
            if ema:
                with torch.no_grad():
                    for a,p in zip(avg.parameters(), model.parameters()): a.lerp_(p, 1-ema)
    return (avg or model).eval(), (time.process_time()-start)/epochs

def run(name, seed, epochs, train_ds, val, test, probes):
    make,cfg,kw = VARIANTS[name]
    kw = dict(kw); start = probes[kw.pop('start', 'quadratic_probe')]
    torch.manual_seed(seed)
    model = make(in_dim=start.in_dim, unit=start.unit, encoder=train_ds.meta['encoder']).start_from(start)
    train_ds.seed = seed
    with FlopCounterMode(display=False) as c: model(torch.zeros(1, start.in_dim, 14, 14))
    model,secs = train(model, train_ds, cfg, epochs, **kw)
    v,t = validate(model, val),validate(model, test)
    return dict(variant=name, seed=seed, epochs=epochs, parameters=model.n_params, macs=c.get_total_flops()/2, cpu_s_epoch=secs, val=average(v), test=average(t), psnrs=[r['psnr'] for r in t])

def table(out, photos, encoder, epochs):
    "What stands in `out`, as a table in Markdown"
    done = [load_json(p) for p in sorted(out.glob('*.json'))]
    by = {}
    for r in done: by.setdefault(r['variant'], []).append(r)
    print('| variant | parameters | MACs a token | CPU s an epoch | val PSNR | test PSNR dB | SSIM | against the default (95 %), dB | seeds |\n|---|---|---|---|---|---|---|---|---|')
    for k in [*(k for k in by if k not in VARIANTS), *(k for k in VARIANTS if k in by)]:
        rs = by[k]; m = lambda f: np.mean([f(r) for r in rs]); ps = np.mean([r['psnrs'] for r in rs], 0)
        ref = np.mean([r['psnrs'] for r in by['default'] if r.get('seed') in {q.get('seed', 0) for q in rs}], 0) if 'default' in by else None
        diff = '' if ref is None or k == 'default' else f"{(ps-ref).mean():+.2f} ({', '.join(f'{v:+.2f}' for v in bootstrap_ci((ps-ref).tolist(), photos))})"
        sd = f" ± {np.std([r['test']['psnr'] for r in rs], ddof=1):.2f}" if len(rs) > 1 else ''
        cost = f"{rs[0]['parameters']/1e6:.2f} M | {rs[0]['macs']/196e6:.2f} M | {m(lambda r: r['cpu_s_epoch']):.1f}" if 'macs' in rs[0] else '| |'
        print(f"| {k.replace('_',' ')} | {cost} | {m(lambda r: r['val']['psnr']):.2f} | {m(lambda r: r['test']['psnr']):.2f}{sd} | {m(lambda r: r['test']['ssim']):.3f} | {diff} | {len(rs) if 'seed' in rs[0] else '–'} |")
    print(f"\n{epochs} epochs; test: {len(photos)} patches of {len(set(photos))} photos · {encoder_line(encoder)}")

@call_parse
def main(pairs:str,          # folder written by dinoinv_prepare
         out:str,            # folder for the results of each run
         epochs:int=8,       # of each
         seeds:str='0',      # of weights, crops and order
         only:str=None):     # variants, separated by commas; default: all
    "Train decoder variants alike and compare them; see the head of this file"
    out,names = Path(out),only.split(',') if only else list(VARIANTS)
    ds = PairsDataset(pairs, 'train', S.crop)
    val,test = (PairsDataset(pairs, s, None, random=False) for s in ('val','test'))
    if not (out/'probes').exists():
        for k,p in fit_probes(ds, val).items(): p.save_pretrained(out/'probes'/k)
    probes = load_probes(out/'probes')
    for k,p in probes.items():
        if not (out/f'{k}.json').exists(): rows = validate(p, test); save_json(out/f'{k}.json', dict(variant=k, val=average(validate(p, val)), test=average(rows), psnrs=[r['psnr'] for r in rows]))
    for seed in map(int, seeds.split(',')):
        for name in names:
            path = out/f'{name}-{seed}.json'
            if not path.exists(): save_json(path, run(name, seed, epochs, ds, val, test, probes)); print(path.stem, load_json(path)['test'], flush=True)
    table(out, [n.split('__')[0] for n in test.names], ds.meta['encoder'], epochs)
