"""What did training cost, not of one encoder and one control, but of several of each?

    python bench/encoders.py PAIRS OUT --encoders A,B    A, B: written by dinoinv_pretrain with other seeds, `RUN/encoder`

`mini` stands first. For each encoder there is a control: the same architecture with random weights from another seed.
On generated pictures each gets a demo of its own in OUT (`make_demo`: probes and a trained decoder); on real photos, the patches of PAIRS, only probes, as in bench/mini.py.
A second call does only what is missing. Scores go to bench/encoders.json, weights are not kept.
"""
import os; os.environ.setdefault('TQDM_DISABLE', '1')
from pathlib import Path
import numpy as np, torch
from fastcore.script import call_parse
from mini import patches, scales
from dinoinv.core import read_json, save_json
from dinoinv.features import load_encoder
from dinoinv.gallery import make_demo
from dinoinv.models import random_model
from dinoinv.scores import bootstrap_ci

READERS = 'linear_probe','scaled_probe','decoder'

def another_control(enc, seed, folder):
    "The architecture of `enc` with weights drawn from `seed`, saved"
    random_model(type(enc.model), enc.config, seed).save_pretrained(folder)
    return str(folder)

def on_generated(name, folder):
    "PSNR of each test patch of a demo by each reader, and the picture that each patch is of"
    if not (folder/'gallery.html').exists(): make_demo(folder, name)
    infos = [read_json(path) for path in sorted((folder/'results').glob('*/info.json'))]
    rows = [o['baselines'] | dict(decoder=o['scores']) for o in infos]
    return {reader: [row[reader]['psnr'] for row in rows] for reader in READERS}, [o['group'] for o in infos]

def constant_part(enc, x):
    "How much the hidden tokens vary, relative to their mean, along the direction where they vary least: what makes 1/σ linear in final tokens"
    h = torch.cat([enc.encode(o, [enc.n_layers]) for o in x.split(16)]).movedim(1, -1).flatten(0, -2).double()
    h = h - h.mean(1, keepdim=True)
    cov = torch.cov(h.T)
    along = h@torch.linalg.solve(cov + 1e-6*cov.diagonal().mean()*torch.eye(len(cov)), h.mean(0))
    return (along.std()/along.mean()).item()

def compare(by_encoder, groups):
    "Trained less untrained on the same patches: of all, the interval over pictures; lowest and highest of all pairs of an encoder and a control"
    trained,untrained = (np.array([o for who,o in by_encoder.items() if ('control' in who) == is_control]) for is_control in (False,True))
    of_patches = trained.mean(0)-untrained.mean(0)
    pairs = (trained.mean(1)[:,None]-untrained.mean(1)).flatten()
    return dict(mean=float(of_patches.mean()), ci95=bootstrap_ci(of_patches.tolist(), groups), lowest=float(pairs.min()), highest=float(pairs.max()))

@call_parse
def main(pairs:str,      # of real photos, see bench/mini.py
         out:str,        # folder for demos
         encoders:str=''): # folders of more encoders, separated by commas
    "See the head of this file"
    out,mini = Path(out),load_encoder('mini')
    names = {'mini': 'mini', 'control': 'untrained:mini'}
    for seed,folder in enumerate(filter(None, encoders.split(',')), 1):
        names[f'mini, seed {seed}'] = folder
        names[f'control, seed {seed}'] = another_control(mini, seed, out/f'weights/{seed}')
    (train,_),(test,photos) = patches(pairs, 'train', 480),patches(pairs, 'test')
    generated,real,about = {},{},{}
    for who,name in names.items():
        folder = out/who.replace(', seed ', '-')
        generated[who],pictures = on_generated(name, folder)
        enc = load_encoder(name)
        if not (folder/'real.json').exists(): save_json(folder/'real.json', scales(enc, train, test))
        real[who] = read_json(folder/'real.json')
        about[who] = dict(weights=enc.weights, varies=constant_part(enc, train))
        print(who, about[who], {k: round(np.mean(v), 2) for k,v in (generated[who] | real[who]).items()}, flush=True)
    results = dict(encoders=about)
    for kind,found,groups in (('generated', generated, pictures),('real', real, photos)):
        readers = next(iter(found.values()))
        results[kind] = dict(pictures=len({*groups}), patches=len(groups), psnr={reader: {who: float(np.mean(found[who][reader])) for who in names} for reader in readers},
                             difference={reader: compare({who: found[who][reader] for who in names}, groups) for reader in readers})
    save_json(Path(__file__).with_suffix('.json'), results)
