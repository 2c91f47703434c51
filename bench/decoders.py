"""Which decoder? Variants beside the default, each trained alike on the same pairs of real photos.

    python bench/decoders.py PAIRS OUT [--epochs 6] [--seeds 0,1] [--only 'default;no blocks']   choose: validation patches
    python bench/decoders.py PAIRS OUT --test [--only …]                                      report: test patches, once

Each training leaves a run in OUT/<variant>-<seed>/, so a second call does only what is missing; the table at the end is made
from what is there. What did not earn a place in the package (a quadratic start, gates, other scales and losses) is defined here.
"""
import os
os.environ.setdefault('TQDM_DISABLE', '1')
import argparse, time
from dataclasses import replace
from pathlib import Path
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
from dinoinv.core import read_json, save_json
from dinoinv.dataset import PairsDataset, load_batches
from dinoinv.decoder import Decoder, LinearProbe, bounded, n_params, normalise
from dinoinv.features import encoder_line
from dinoinv.runs import load_module
from dinoinv.scores import PERFECT, average, bootstrap_ci
from dinoinv.train import PRESETS, TrainConfig, train_decoder, validate

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

class Unlimited(Decoder):
    "Long tokens are not brought down"
    def forward(self, f):
        x = normalise(f, self.mean, self.std)
        seen = self.blocks(self.stem(x))
        return self.upsample(self.out(seen).float() + self.shortcut(self.factor(seen)*x))

class Middle(Decoder):
    "A shortcut of 3×3 tokens that starts as the probe of one: the weights of the neighbours are zero at first"
    def prepare(self, forms):
        self.shortcut.weight.data.zero_()
        self.shortcut.weight.data[:,:,1:2,1:2] = forms['linear'].linear.weight
        self.shortcut.bias.data.copy_(forms['linear'].linear.bias)

# ---- losses ----

def l1(pred, target): return (pred-target).abs().mean()

def l1_ssim(pred, target): return .9*l1(pred, target) + .1*(1-ssim(pred.float(), target, data_range=1.))

# ---- the variants: name → (class, its shape, settings of the training, loss) ----

S = TrainConfig()
VARIANTS = {
    'default':              (Decoder, {}, S, l1),
    'no blocks':            (Decoder, dict(blocks=0), S, l1),
    'no scale':             (Decoder, dict(scaled=False), S, l1),
    'shortcut of one token':(Decoder, dict(reach=0), S, l1),
    'neither, width 128':   (Decoder, dict(reach=0, scaled=False, width=128), S, l1),
    'no shortcut':          (Decoder, dict(reach=None), S, l1),
    'quadratic, gates':     (Quadratic, dict(width=64, reach=0, scaled=False), S, l1),
    'scale after':          (ScaledAfter, {}, S, l1),
    'scale a pixel':        (ScaledPixels, dict(reach=0), S, l1),
    '3×3 from the middle':  (Middle, {}, S, l1),
    'width 64':             (Decoder, dict(width=64), S, l1),
    'width 160, 6 blocks':  (Decoder, dict(width=160, blocks=6), S, l1),
    "the method's":         (Decoder, dict(head='bilinear', width=64), PRESETS['method'], l1),
    'L1 + 0.1 (1 − SSIM)':  (Decoder, {}, S, l1_ssim),
    'rate 2e-3':            (Decoder, {}, replace(S, lr=2e-3), l1),
    'rate 3e-3':            (Decoder, {}, replace(S, lr=3e-3), l1),
    'beta2 .999':           (Decoder, {}, replace(S, beta2=.999), l1),
    'beta2 .95':            (Decoder, {}, replace(S, beta2=.95), l1),
    'no limit for tokens':  (Unlimited, {}, S, l1),
}

def closed_forms(ds, path):
    "name → probe, each in closed form; kept in `path`, for they take minutes"
    if path.exists(): return torch.load(path, weights_only=False)
    every = 4 if ds[0]['features'].shape[0] > 256 else 1 # of wide tokens a quarter must do
    def batches(every=every):
        for batch in load_batches(ds.uncropped(), 8, every=every): yield batch['features'], batch['target']
    linear = LinearProbe.fit(batches(1), ds.unit)
    neighbour = LinearProbe.fit(batches(), ds.unit, reach=1)
    products = Products(linear, batches())
    quadratic = Then(products, LinearProbe.fit(((products(f),x) for f,x in batches()), ds.unit))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(forms := dict(linear=linear, neighbour=neighbour, quadratic=quadratic), path)
    return forms

def build(name, forms, meta):
    "The model of a variant, untrained"
    make,shape,_,_ = VARIANTS[name]
    linear = forms['linear']
    model = make(linear.in_dim, unit=linear.unit, encoder=meta['encoder'], **shape)
    if model.reach is not None: model.start_from(forms['neighbour' if model.reach else 'linear'])
    if hasattr(model, 'prepare'): model.prepare(forms)
    return model

class Clock:
    "CPU seconds of the epochs between the first and the last, where nothing is validated"
    def __init__(self): self.times = []
    def __call__(self, epoch, log, model): self.times.append(time.process_time())
    def an_epoch(self): return float(np.diff(self.times[:-1]).mean()) if len(self.times) > 2 else float('nan')

def run(name, seed, epochs, pairs, forms, meta, folder):
    "Train a variant, and note what it costs"
    *_,cfg,loss = VARIANTS[name]
    torch.manual_seed(seed)
    model,clock = build(name, forms, meta),Clock()
    with FlopCounterMode(display=False) as count: model(torch.zeros(1, model.in_dim, 14, 14))
    cfg = replace(cfg, epochs=epochs, seed=seed, val_every=epochs, val_crop=10**6) # whole patches
    probes = dict(linear_probe=forms['linear'], neighbour_probe=forms['neighbour'])
    train_decoder(pairs, folder, cfg, model=model, loss=loss, probes=probes, callbacks=[clock], resume=(folder/'config.json').exists())
    save_json(folder/'cost.json', dict(parameters=n_params(model), macs=count.get_total_flops()/2/196, cpu_s_epoch=clock.an_epoch()))

def rows_of(name, folder, forms, ds, split):
    "Scores of a finished run on each patch, computed once"
    path = folder/f'{split}_scores.json'
    if not path.exists():
        model = load_module(lambda: build(name, forms, ds.meta), folder/'best')
        save_json(path, dict(rows=validate(model, ds)))
    return read_json(path, rows=list)['rows']

def mean_psnr(runs): return np.mean([[min(r['psnr'], PERFECT) for r in run['rows']] for run in runs], 0)

def line(name, runs, default, photos):
    "A line of the table; `default` are the runs of the default with the same seeds"
    means = [average(run['rows']) for run in runs]
    spread = f" ± {np.std([m['psnr'] for m in means], ddof=1):.2f}" if len(runs) > 1 else ''
    cost = interval = ''
    if 'macs' in runs[0]:
        seconds = np.mean([run['cpu_s_epoch'] or np.nan for run in runs])
        cost = f"{runs[0]['parameters']/1e6:.2f} M | {runs[0]['macs']/1e6:.2f} M | {seconds:.1f}"
    if default and name != 'default':
        difference = mean_psnr(runs)-mean_psnr(default)
        low,high = bootstrap_ci(difference.tolist(), photos) or (np.nan,np.nan)
        interval = f'{difference.mean():+.2f} ({low:+.2f}, {high:+.2f})'
    psnr,ssims = np.mean([m['psnr'] for m in means]), np.mean([m['ssim'] for m in means])
    return f"| {name} | {cost or '| |'} | {psnr:.2f}{spread} | {ssims:.3f} | {interval} | {len(runs) if cost else '–'} |"

def table(found, split, photos, encoder, epochs):
    "The variants as a table in Markdown, with paired differences against the default"
    print(f'| {split} patches | parameters | MACs a token | CPU s an epoch | PSNR dB | SSIM | against the default (95 %), dB | seeds |')
    print('|---|---|---|---|---|---|---|---|')
    for name,runs in found.items():
        seeds = {run['seed'] for run in runs if 'seed' in run}
        default = [run for run in found.get('default', []) if not seeds or run['seed'] in seeds]
        print(line(name, runs, default, photos))
    print(f'\n{epochs} epochs; {len(photos)} patches of {len(set(photos))} photos; intervals draw photos · {encoder_line(encoder)}')

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('pairs', help='folder written by dinoinv_prepare')
    p.add_argument('out', type=Path, help='folder for the runs')
    p.add_argument('--epochs', type=int, default=6, help='of each')
    p.add_argument('--seeds', default='0', help='of weights, crops and order')
    p.add_argument('--only', help='variants, separated by semicolons; default: all')
    p.add_argument('--test', action='store_true', help='score finished runs on the test patches, train nothing')
    o = p.parse_args()
    ds,split = PairsDataset(o.pairs, 'train'), 'test' if o.test else 'val'
    part = PairsDataset(o.pairs, split, None, random=False)
    forms = closed_forms(ds, o.out/'closed_forms.pt')
    found = {f'{name} probe': [dict(rows=validate(probe, part))] for name,probe in forms.items()}
    for name in o.only.split(';') if o.only else VARIANTS:
        for seed in map(int, o.seeds.split(',')):
            folder = o.out/f'{name}-{seed}'
            if not o.test and not (folder/'cost.json').exists(): run(name, seed, o.epochs, o.pairs, forms, ds.meta, folder)
            if not (folder/'cost.json').exists(): continue
            rows = rows_of(name, folder, forms, part, split)
            found.setdefault(name, []).append(read_json(folder/'cost.json') | dict(seed=seed, rows=rows))
            print(folder.name, {k: round(v, 4) for k,v in average(rows).items()}, flush=True)
    table(found, split, [n.split('__')[0] for n in part.names], ds.meta['encoder'], o.epochs)

if __name__ == '__main__': main()
