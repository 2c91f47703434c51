"""Which decoder? Variants beside the default, each trained alike on the same pairs of real photos.

    python bench/decoders.py PAIRS OUT [--epochs 8] [--seeds 0,1] [--only 'default;no blocks']   choose: validation patches
    python bench/decoders.py PAIRS OUT --test [--only …]                                      report: test patches, once

Each training leaves a run in OUT/<variant>-<seed>/, so a second call does only what is missing; the table at the end is made
from what is there, and its numbers go to bench/decoders.json, under the name of the encoder and the split. What did not earn a
place in the package (a quadratic probe, other starts and losses) is defined here.
"""
import os
os.environ.setdefault('TQDM_DISABLE', '1')
import argparse, math, time
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchmetrics.functional.image import structural_similarity_index_measure as ssim
from dinoinv.core import read_json, save_json
from dinoinv.dataset import PairsDataset
from dinoinv.decoder import Decoder, LinearProbe, bounded, n_params, normalise
from dinoinv.features import encoder_line
from dinoinv.pairs import load_batches
from dinoinv.runs import load_module
from dinoinv.scores import PERFECT, average, bootstrap_ci
from dinoinv.train import MAX_PROBE_TOKENS, PRESETS, TrainConfig, fit_probes, train_decoder, validate

# ---- closed forms ----

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
    def forward(self, f):
        x = normalise(f, self.probe[0].mean, self.probe[0].std)
        z = F.conv2d(x, self.directions)
        return torch.cat([x, *(x*z[:,i:i+1] for i in range(len(self.directions)))], 1)

class Then(nn.Module):
    "One module after another"
    def __init__(self, first, probe): super().__init__(); self.first,self.probe = first,probe
    def forward(self, f): return self.probe(self.first(f))

# ---- decoders ----

class Other(nn.Module):
    "A decoder whose residual blocks stand beside another start than the default's"
    def __init__(self, start, **shape):
        super().__init__()
        self.shortcut = deepcopy(start).requires_grad_(True)
        rest = Decoder(start.in_dim, unit=start.unit, **shape)
        rest.shortcut = None
        self.out = rest.out # under this name it learns as slowly as the default's
        self.rest = rest
        self.in_dim = start.in_dim
    def tokens(self, f): return bounded(normalise(f, self.shortcut.mean, self.shortcut.std))
    def forward(self, f): return self.shortcut(f) + self.rest(self.tokens(f))

class Restoring(Other):
    "The blocks read the restored tokens, in place of those that the encoder put out"
    def __init__(self, start):
        super().__init__(start)
        self.rest.stem[0] = nn.Conv2d(start.in_dim+2, self.rest.stem[0].out_channels, 1)
    def tokens(self, f): return normalise(self.shortcut.restored(f), self.shortcut.probe.mean, self.shortcut.probe.std)

class Factor(Other):
    "The blocks also put out a factor for each token, which multiplies the restored tokens"
    def __init__(self, start):
        super().__init__(start)
        self.factor = nn.Conv2d(self.rest.out.in_channels, 1, 3, padding=1)
        nn.init.zeros_(self.factor.weight); nn.init.zeros_(self.factor.bias)
    def forward(self, f):
        seen = self.rest.blocks(self.rest.stem(self.shortcut.restored.tokens(f)))
        factor = 2*self.factor(seen).float().sigmoid()
        return self.rest.upsample(self.rest.out(seen).float()) + self.shortcut.probe(self.shortcut.restored(f)*factor).float()

# ---- losses ----

def l1_ssim(pred, target): return .9*F.l1_loss(pred, target) + .1*(1-ssim(pred.float(), target, data_range=1.))

# ---- the variants: name → (of closed forms → model, settings of the training, loss) ----

def default(forms, **shape): return Decoder.from_probe(forms['products'], **shape)

S = TrainConfig()
VARIANTS = {
    'default':                   (default, S, F.l1_loss),
    'no blocks':                 (partial(default, blocks=0), S, F.l1_loss),
    'no products':               (lambda forms: Decoder.from_probe(forms['scaled']), S, F.l1_loss),
    'from the linear probe':     (lambda forms: Other(forms['linear 3×3']), S, F.l1_loss),
    'blocks read restored tokens': (lambda forms: Restoring(forms['scaled']), S, F.l1_loss),
    'a factor from the blocks':  (lambda forms: Factor(forms['scaled']), S, F.l1_loss),
    'width 64':                  (partial(default, width=64), S, F.l1_loss),
    'width 160, 6 blocks':       (partial(default, width=160, blocks=6), S, F.l1_loss),
    "the method's":              (lambda forms: Decoder(forms['linear'].in_dim, unit=forms['linear'].unit, head='bilinear', width=64), PRESETS['method'], F.l1_loss),
    'L1 + 0.1 (1 − SSIM)':       (default, S, l1_ssim),
    'rate 2e-3':                 (default, replace(S, lr=2e-3), F.l1_loss),
    'shortcut at .2 of the rate': (default, replace(S, shortcut_lr=.2), F.l1_loss),
}

def closed_forms(ds, path):
    "name → probe without a decoder; kept in `path`, for they take minutes"
    if path.exists(): return torch.load(path, weights_only=False)
    tokens = sum(h*w for h,w in ds.uncropped().sizes)/ds.unit**2
    every = math.ceil(tokens/MAX_PROBE_TOKENS)
    def batches():
        for batch in load_batches(ds.uncropped(), 8, every=every): yield batch['features'], batch['target']
    probes = fit_probes(ds)
    linear = probes['linear_probe']
    products = Products(linear, batches())
    quadratic = Then(products, LinearProbe.fit(((products(f),x) for f,x in batches()), ds.unit))
    forms = {'linear': linear, 'linear 3×3': LinearProbe.fit(batches(), ds.unit, reach=1), 'quadratic': quadratic,
             'scaled': probes['scaled_probe'], 'products': probes['product_probe']}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(forms, path)
    return forms

class Clock:
    "CPU seconds of the epochs between the first and the last, where nothing is validated"
    def __init__(self): self.times = []
    def __call__(self, epoch, log, model): self.times.append(time.process_time())
    def an_epoch(self): return float(np.diff(self.times[:-1]).mean()) if len(self.times) > 2 else float('nan')

def run(name, seed, epochs, pairs, forms, folder):
    "Train a variant, and note what it costs"
    make,cfg,loss = VARIANTS[name]
    torch.manual_seed(seed)
    model,clock = make(forms),Clock()
    with FlopCounterMode(display=False) as count: model(torch.zeros(1, model.in_dim, 14, 14))
    cfg = replace(cfg, epochs=epochs, seed=seed, val_every=epochs, val_crop=10**6) # whole patches
    probes = dict(linear_probe=forms['linear'], scaled_probe=forms['scaled'], product_probe=forms['products'])
    train_decoder(pairs, folder, cfg, model=model, loss=loss, probes=probes, callbacks=[clock], resume=(folder/'config.json').exists())
    save_json(folder/'cost.json', dict(parameters=n_params(model), macs=count.get_total_flops()/2/196, cpu_s_epoch=clock.an_epoch()))

def rows_of(name, folder, forms, ds, split):
    "Scores of a finished run on each patch, computed once"
    path = folder/f'{split}_scores.json'
    if not path.exists():
        model = load_module(lambda: VARIANTS[name][0](forms), folder/'best')
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
    p.add_argument('--epochs', type=int, default=8, help='of each')
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
            if not o.test and not (folder/'cost.json').exists(): run(name, seed, o.epochs, o.pairs, forms, folder)
            if not (folder/'cost.json').exists(): continue
            rows = rows_of(name, folder, forms, part, split)
            found.setdefault(name, []).append(read_json(folder/'cost.json') | dict(seed=seed, rows=rows))
            print(folder.name, {k: round(v, 4) for k,v in average(rows).items()}, flush=True)
    photos = [n.split('__')[0] for n in part.names]
    table(found, split, photos, ds.meta['encoder'], o.epochs)
    path = Path(__file__).with_suffix('.json')
    results = read_json(path) if path.exists() else {}
    scores = {name: [{k: v for k,v in run.items() if k != 'rows'} | average(run['rows']) for run in runs] for name,runs in found.items()}
    key = f"{encoder_line(ds.meta['encoder'])}; {split}" + (f', {o.epochs} epochs' if o.epochs != p.get_default('epochs') else '')
    results[key] = dict(epochs=o.epochs, patches=len(photos), photos=len(set(photos)), scores=scores)
    save_json(path, results)

if __name__ == '__main__': main()
