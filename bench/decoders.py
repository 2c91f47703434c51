"""Which decoder? Variants beside the default, each trained alike on the same pairs of real photos.

    python bench/decoders.py PAIRS OUT [--epochs 6] [--seeds 0] [--only 'default;no blocks']   choose: validation patches
    python bench/decoders.py PAIRS OUT --test [--only …]                                    report: test patches, once

Each run leaves OUT/<variant>-<seed>/, so a second call does only what is missing; the table at the end is made from what is
there. What did not earn a place in the package (a quadratic start, gates, other scales, losses, averaged weights) is defined here.
"""
import os; os.environ.setdefault('TQDM_DISABLE', '1')
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from fastcore.script import call_parse
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
from dinoinv import decoder as decoder_module
from dinoinv.core import load_json, save_json
from dinoinv.dataset import PairsDataset, load_batches
from dinoinv.decoder import Decoder, LinearProbe, bounded, normalise
from dinoinv.features import amp_dtype, encoder_line
from dinoinv.inference import bootstrap_ci
from dinoinv.scores import average, predict, validate
from dinoinv.train import PRESETS, TrainConfig, make_optimizer

# ---- decoders that were tried ----

class Products(nn.Module):
    "A token, and the token times each of its first principal components: `(B,C,h,w)` → `(B,(1+k)·C,h,w)`"
    def __init__(self, probe, batches, k=4):
        super().__init__()
        self.probe = [probe] # in a list: its numbers are not ours
        cov = sum(self._gram(f) for f,_ in batches)
        val,vec = torch.linalg.eigh(cov/cov.diagonal().mean())
        self.directions = nn.Buffer((vec/val.clamp(min=1e-6).sqrt()).flip(1).T[:k, :, None, None].float())
    def _gram(self, f):
        x = normalise(f, self.probe[0].mean, self.probe[0].std).movedim(1, -1).flatten(0, -2)
        return (x.T@x).double()
    def of(self, x, y):
        "`y`, and `y` times the components of `x`"
        with torch.autocast('cpu', enabled=False): z = F.conv2d(x.float(), self.directions)
        return torch.cat([y, *(y*z[:,i:i+1] for i in range(len(self.directions)))], 1)
    def forward(self, f):
        x = normalise(f, self.probe[0].mean, self.probe[0].std)
        return self.of(x, x)

class Then(nn.Module):
    "One module after another, with the interface of a probe"
    def __init__(self, first, probe): super().__init__(); self.first,self.probe = first,probe
    def forward(self, f): return self.probe(self.first(f))

class Gate(nn.Module):
    "Products of linear maps of a token, added to it; the identity at first"
    def __init__(self, dim, hidden=128):
        super().__init__()
        self.up,self.down = nn.Conv2d(dim, 2*hidden, 1), nn.Conv2d(hidden, dim, 1)
        nn.init.zeros_(self.down.weight); nn.init.zeros_(self.down.bias)
    def forward(self, x):
        a,b = self.up(x).chunk(2, 1)
        return x + self.down(a*torch.tanh(b))

class Quadratic(Decoder):
    "An earlier default: its shortcut starts from the quadratic probe, behind three gates; a trunk of 64 channels"
    def prepare(self, forms):
        first,probe = forms['quadratic'].first,forms['quadratic'].probe
        self.products,self.gates = first,nn.Sequential(*[Gate(self.in_dim) for _ in range(3)])
        self.shortcut = nn.Conv2d(probe.in_dim, 3*self.unit**2, 1)
        with torch.no_grad(): # the probe normalises its inputs, the shortcut does not
            w = probe.linear.weight/probe.std.view(1,-1,1,1)
            self.shortcut.weight.copy_(w); self.shortcut.bias.copy_(probe.linear.bias - w[...,0,0]@probe.mean)
    def forward(self, f):
        x = normalise(f, self.mean, self.std)
        g = self.gates(x)
        return self.upsample(self.out(self.blocks(self.stem(g))).float() + self.shortcut(self.products.of(x, g)))

class ScaledPixels(Decoder):
    "A factor for each of a token's pixels, on what the shortcut makes of it, in place of one for the token"
    def prepare(self, forms):
        self.scale = nn.Conv2d(self.out.in_channels, 3*self.unit**2, 3, padding=1)
        nn.init.zeros_(self.scale.weight); nn.init.zeros_(self.scale.bias)
    def forward(self, f):
        x = bounded(normalise(f, self.mean, self.std))
        seen = self.blocks(self.stem(x))
        return self.upsample(self.out(seen).float() + self.factor(seen)*self.shortcut(x))

class ScaledAfter(Decoder):
    "The factor of a token on what the 3×3 shortcut makes of its window, in place of on each token before it"
    def forward(self, f):
        x = bounded(normalise(f, self.mean, self.std))
        seen,bias = self.blocks(self.stem(x)),self.shortcut.bias.view(1,-1,1,1)
        return self.upsample(self.out(seen).float() + bias + self.factor(seen)*(self.shortcut(x)-bias))

class Middle(Decoder):
    "A shortcut of 3×3 tokens that starts as the probe of one: the weights of the neighbours are zero at first"
    def prepare(self, forms):
        self.shortcut.weight.data.zero_()
        self.shortcut.weight.data[:,:,1:2,1:2] = forms['linear'].linear.weight
        self.shortcut.bias.data.copy_(forms['linear'].linear.bias)

# ---- losses ----

def l1(p, t): return (p-t).abs().mean()
def l1_ssim(p, t): return .9*l1(p, t) + .1*(1-ssim(p, t, data_range=1.))

# ---- the variants: name → (shape, settings, what else) ----

S = TrainConfig()
VARIANTS = {
    'default':              ({}, S, {}),
    'no blocks':            (dict(blocks=0), S, {}),
    'no scale':             (dict(scaled=False), S, {}),
    'shortcut of one token':(dict(reach=0), S, {}),
    'neither, width 128':   (dict(reach=0, scaled=False, width=128), S, {}),
    'no shortcut':          (dict(reach=None), S, {}),
    'quadratic, gates':     (dict(width=64, reach=0, scaled=False), S, dict(make=Quadratic)),
    'scale after':          ({}, S, dict(make=ScaledAfter)),
    'scale a pixel':        (dict(reach=0), S, dict(make=ScaledPixels)),
    '3×3 from the middle':  ({}, S, dict(make=Middle)),
    'width 64':             (dict(width=64), S, {}),
    'width 160, 6 blocks':  (dict(width=160, blocks=6), S, {}),
    "the method's":         (dict(head='bilinear', width=64), PRESETS['method'], {}),
    'L1 + 0.1 (1 − SSIM)':  ({}, S, dict(loss=l1_ssim)),
    'averaged weights, .98':({}, S, dict(ema=.98)),
    'rate 2e-3':            ({}, replace(S, lr=2e-3), {}),
    'rate 3e-3':            ({}, replace(S, lr=3e-3), {}),
    'beta2 .999':           ({}, replace(S, beta2=.999), {}),
    'beta2 .95':            ({}, replace(S, beta2=.95), {}),
    'no limit for tokens':  ({}, S, dict(limit=1e9)),
}

def train(model, ds, cfg, epochs, loss=l1, ema=None):
    "Train as `dinoinv.train` does, on one process; returns the model, or its moving average, and CPU seconds an epoch"
    model = model.to(memory_format=torch.channels_last).train()
    opt,sched = make_optimizer(model, cfg, epochs*-(-len(ds)//cfg.batch_size))
    dtype,avg,start = amp_dtype('cpu'),deepcopy(model) if ema else None,time.process_time()
    for ds.epoch in range(1, epochs+1):
        for b in load_batches(ds, cfg.batch_size, True):
            with torch.autocast('cpu', dtype=dtype, enabled=dtype is not None): pred = predict(model, b)
            loss(pred, b['target']).backward()
            if cfg.clip: nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
            opt.step(); opt.zero_grad(); sched.step()
            if ema:
                with torch.no_grad():
                    for a,p in zip(avg.parameters(), model.parameters()): a.lerp_(p, 1-ema)
    return (avg or model).eval(), (time.process_time()-start)/epochs

def closed_forms(ds, path):
    "name → probe, each in closed form; kept in `path`, for they take minutes"
    if path.exists(): return torch.load(path, weights_only=False)
    every = 4 if ds[0]['features'].shape[0] > 256 else 1 # of wide tokens a quarter must do
    batches = lambda every=every: ((b['features'],b['target']) for b in load_batches(ds.uncropped(), 8, every=every))
    forms = dict(linear=LinearProbe.fit(batches(1), ds.unit), neighbour=LinearProbe.fit(batches(), ds.unit, reach=1))
    first = Products(forms['linear'], batches())
    forms['quadratic'] = Then(first, LinearProbe.fit(((first(f),x) for f,x in batches()), ds.unit))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(forms, path)
    return forms

def build(name, forms, meta):
    "A variant, untrained"
    shape,cfg,more = VARIANTS[name]
    model = more.get('make', Decoder)(forms['linear'].in_dim, unit=forms['linear'].unit, encoder=meta['encoder'], **shape)
    model.start_from(forms['neighbour' if model.reach else 'linear'])
    if hasattr(model, 'prepare'): model.prepare(forms)
    return model,cfg,{k: v for k,v in more.items() if k in ('loss','ema')}

def run(name, seed, epochs, ds, val, forms, folder):
    torch.manual_seed(seed)
    ds.seed = seed
    decoder_module.LIMIT = VARIANTS[name][2].get('limit', 2.)
    model,cfg,more = build(name, forms, ds.meta)
    with FlopCounterMode(display=False) as c: model(torch.zeros(1, model.in_dim, 14, 14))
    model,seconds = train(model, ds, cfg, epochs, **more)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder/'weights.pt')
    save_json(folder/'val.json', dict(variant=name, seed=seed, epochs=epochs, parameters=model.n_params, macs=c.get_total_flops()/2/196,
                                      cpu_s_epoch=seconds, rows=validate(model, val)))

def scored(folder, split, name, forms, ds, part):
    "Scores of a finished run on `part`, computed once"
    path = folder/f'{split}.json'
    if not path.exists():
        decoder_module.LIMIT = VARIANTS[name][2].get('limit', 2.)
        model = build(name, forms, ds.meta)[0]
        model.load_state_dict(torch.load(folder/'weights.pt', weights_only=True))
        save_json(path, load_json(folder/'val.json') | dict(rows=validate(model.eval(), part)))
    return load_json(path)

def table(found, split, photos, encoder, epochs):
    "The variants as a table in Markdown, with paired differences against the default"
    ps = lambda rs: np.mean([[min(r['psnr'], 100.) for r in run['rows']] for run in rs], 0)
    print(f'| {split} patches | parameters | MACs a token | CPU s an epoch | PSNR dB | SSIM | against the default (95 %), dB | seeds |\n|---|---|---|---|---|---|---|---|')
    for k,rs in found.items():
        same = [r for r in found.get('default', []) if r.get('seed') in {q.get('seed', r['seed']) for q in rs}]
        diff = ps(rs)-ps(same) if same and k != 'default' else None
        interval = '' if diff is None else f"{diff.mean():+.2f} ({', '.join(f'{v:+.2f}' for v in bootstrap_ci(diff.tolist(), photos))})"
        means = [average(r['rows']) for r in rs]
        spread = f" ± {np.std([m['psnr'] for m in means], ddof=1):.2f}" if len(rs) > 1 else ''
        cost = f"{rs[0]['parameters']/1e6:.2f} M | {rs[0]['macs']/1e6:.2f} M | {np.mean([r['cpu_s_epoch'] for r in rs]):.1f}" if 'macs' in rs[0] else '| |'
        print(f"| {k} | {cost} | {np.mean([m['psnr'] for m in means]):.2f}{spread} | {np.mean([m['ssim'] for m in means]):.3f} | {interval} | {len(rs) if 'seed' in rs[0] else '–'} |")
    print(f'\n{epochs} epochs; {len(photos)} patches of {len(set(photos))} photos; intervals draw photos · {encoder_line(encoder)}')

@call_parse
def main(pairs:str,          # folder written by dinoinv_prepare
         out:str,            # folder for the results of each run
         epochs:int=6,       # of each
         seeds:str='0',      # of weights, crops and order
         only:str=None,      # variants, separated by semicolons; default: all
         test:bool=False):   # score finished runs on the test patches, train nothing
    "Train decoder variants alike and compare them; see the head of this file"
    out,names = Path(out),only.split(';') if only else list(VARIANTS)
    ds = PairsDataset(pairs, 'train', S.crop)
    val,tst = (PairsDataset(pairs, s, None, random=False) for s in ('val','test'))
    forms = closed_forms(ds, out/'closed_forms.pt')
    split,part = ('test',tst) if test else ('validation',val)
    found = {f'{k} probe': [dict(rows=validate(p, part))] for k,p in forms.items()}
    for name in names:
        for seed in map(int, seeds.split(',')):
            folder = out/f'{name}-{seed}'
            if not test and not (folder/'val.json').exists():
                run(name, seed, epochs, ds, val, forms, folder)
                print(folder.name, {k: round(v, 4) for k,v in average(load_json(folder/'val.json')['rows']).items()}, flush=True)
            if (folder/'val.json').exists():
                found.setdefault(name, []).append(scored(folder, 'test' if test else 'val', name, forms, ds, part))
    table(found, split, [n.split('__')[0] for n in part.names], ds.meta['encoder'], epochs)
