"""What an encoder sees, mixes and keeps of real photos, beside its control.

    python bench/mini.py PHOTOS PAIRS [--encoder mini]
    python bench/mini.py PHOTOS PAIRS --states 6,final --n 10000    only probes of these states, of one token and of 3×3
    python bench/mini.py PHOTOS PAIRS --scale                       only probes of final tokens, scaled or not

PHOTOS has a folder for each class. PAIRS were made of them by dinoinv_prepare, with --group_by file; their test patches are reported.
"""
import os; os.environ.setdefault('TQDM_DISABLE', '1')
from pathlib import Path
import numpy as np, torch
import torch.nn.functional as F
from fastcore.script import call_parse
from dinoinv.dataset import PairsDataset
from dinoinv.core import read_json, save_json
from dinoinv.decoder import LinearProbe, ScaledProbe, low_pass, psnr
from dinoinv.features import control, crop_to_patch, load_encoder
from dinoinv.photos import open_photo, to_tensor
from dinoinv.scores import bootstrap_ci
from dinoinv.sources import survey

def mean_ci(values, groups=None):
    "Mean and 95 % interval as text"
    return f"{np.mean(values):.2f} ({', '.join(f'{v:.2f}' for v in bootstrap_ci(values, groups) or ())})"

def patches(pairs, split, most=None):
    "Square patches of a split, at most so many, and the photo that each is of"
    ds = PairsDataset(pairs, split, None, random=False)
    which = np.linspace(0, len(ds)-1, min(most or len(ds), len(ds))).astype(int)
    which = [i for i in which if ds.sizes[i] == (252,252)]
    return torch.stack([ds[i]['target'] for i in which]).float()/255, [ds.names[i].split('__')[0] for i in which]

@torch.no_grad()
def sees(enc, photos, folder):
    "Leave-one-out 5-NN over the photos' classes: right or wrong for each"
    cls = []
    for p in photos:
        x = crop_to_patch(to_tensor(open_photo(folder/p.path)))[:, :504, :504]
        cls.append(enc.model(((x-enc.mean)/enc.std)[None]).last_hidden_state[0,0])
    z = F.normalize(torch.stack(cls), dim=-1)
    near = (z@z.T - 9*torch.eye(len(z))).topk(5, 1).indices.tolist()
    classes = [p.path.split('/')[0] for p in photos]
    votes = [[classes[j] for j in row] for row in near]
    return [float(max(v, key=v.count) == c) for v,c in zip(votes, classes)]

def mixes(enc, x):
    "How far tokens outside a painted square move, as a share of their length, by picture"
    y = x.clone(); n = x.shape[-1]//14
    y[..., 98:154, 98:154] = torch.tensor([.8,.2,.3]).view(3,1,1)
    outside = torch.ones(n, n, dtype=torch.bool); outside[7:11,7:11] = False
    a,b = (torch.cat([enc.encode(o) for o in p.split(16)]) for p in (x,y))
    return ((a-b).norm(dim=1)/a.norm(dim=1))[:,outside].mean(1).tolist()

def keeps(enc, train, test, layer, reach=0):
    "PSNR of the probe on each test patch"
    grids = lambda x: (enc.encode(o, None if layer is None else [layer]) for o in x.split(16))
    probe = LinearProbe.fit(zip(grids(train), train.split(16)), reach=reach)
    return torch.cat([psnr(probe(g), o) for g,o in zip(grids(test), test.split(16))]).tolist()

def scales(enc, train, test):
    "PSNR of probes of the final output on each test patch: linear, scaled, and linear times the true scale; of one token and of 3×3"
    def tokens(x):
        "Final tokens, and the standard deviation that the last LayerNorm divided them by"
        for o in x.split(16): yield enc.encode(o), enc.encode(o, [enc.n_layers]).std(1, keepdim=True)
    (known,scale),(asked,true) = ([torch.cat(o) for o in zip(*tokens(x))] for x in (train,test))
    def portions(f, x): return zip(f.split(16), x.split(16))
    def score(probe, f): return torch.cat([psnr(probe(g), o) for g,o in portions(f, test)]).tolist()
    plain,out = LinearProbe.fit(portions(known, train)),{}
    for reach,window in enumerate(('one token','3×3 tokens')):
        linear = LinearProbe.fit(portions(known, train), reach=reach)
        scaled = ScaledProbe.fit(lambda: portions(known, train), plain, reach)
        restored = LinearProbe.fit(portions(known*scale, train), reach=reach)
        out |= {f'{window}, linear probe, dB': score(linear, asked), f'{window}, scaled probe, dB': score(scaled, asked),
                f'{window}, linear probe times the true scale, dB': score(restored, asked*true)}
    return out

@call_parse
def main(photos:str,            # folder of photos, a folder for each class
         pairs:str,             # pairs made of them
         encoder:str='mini',    # any name load_encoder takes
         states:str=None,       # only probes of these hidden states, and of the final output if it is among them
         n:int=480,             # training patches to fit on, at most
         scale:bool=False):     # only probes of final tokens, scaled or not
    "See the head of this file"
    enc = load_encoder(encoder)
    encs = [enc, control(enc)]
    found = survey(photos, group_by='file').photos
    (train,_),(test,groups) = patches(pairs, 'train', n),patches(pairs, 'test')
    print(f"{len(train)} training patches, {len(test)} test patches of {len(set(groups))} photos; {len(found)} photos in {len({p.path.split('/')[0] for p in found})} classes\n")
    print('| | ' + ' | '.join(f'{e.name} ({e.weights})' for e in encs) + ' | difference |\n|---|---|---|---|')
    path = Path(__file__).with_suffix('.json')
    results = read_json(path) if path.exists() else {}
    def row(name, scores, groups=groups):
        "A line of the table, and of `mini.json`: mean and interval of each encoder's scores, and of their difference"
        columns = [*scores, [a-b for a,b in zip(*scores)]]
        print(f'| {name} | ' + ' | '.join(mean_ci(v, groups) for v in columns) + ' |', flush=True)
        results[name] = {who: dict(mean=float(np.mean(v)), ci95=bootstrap_ci(v, groups), n=len(v))
                         for who,v in zip([*(e.name for e in encs), 'difference'], columns)}
        results['encoders'] = {e.name: e.weights for e in encs}
        save_json(path, results)
    if scale:
        of_each = [scales(e, train, test) for e in encs]
        for k in of_each[0]: row(k, [f[k] for f in of_each])
        return
    if states:
        for state in states.split(','):
            for reach,probe in enumerate(('linear probe','linear probe of 3×3')):
                layer = None if state == 'final' else int(state)
                row(f'{probe}, {state}, dB', [keeps(e, train, test, layer, reach) for e in encs])
        return
    row('5-NN accuracy, classes, leave one out', [sees(e, found, Path(photos)) for e in encs], None)
    row('tokens outside a painted square move by', [mixes(e, test) for e in encs])
    row('low-pass oracle, dB', [psnr(low_pass(test, enc.patch), test).tolist()]*2)
    for layer in (0, enc.n_layers//3, enc.n_layers//2, enc.n_layers, None):
        scores = [keeps(e, train, test, layer) for e in encs]
        name = 'final output' if layer is None else f'hidden state {layer}'
        row(f'linear probe, {name}, dB', scores)
