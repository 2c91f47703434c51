"""What an encoder sees, mixes and keeps of real photos, beside its control.

    python bench/mini.py PHOTOS PAIRS [--encoder mini]
    python bench/mini.py PHOTOS PAIRS --states 6,final --n 10000    only probes of these states, of one token and of 3×3
    python bench/mini.py PHOTOS PAIRS --scale                       only probes of final tokens times a scale, read from them or true

PHOTOS has a folder for each class. PAIRS were made of them by dinoinv_prepare, with --group_by file; their test patches are reported.
"""
import os; os.environ.setdefault('TQDM_DISABLE', '1')
from pathlib import Path
import numpy as np, torch
import torch.nn.functional as F
from fastcore.script import call_parse
from dinoinv.dataset import PairsDataset
from dinoinv.decoder import LinearProbe, low_pass, psnr
from dinoinv.features import control, crop_to_patch, load_encoder
from dinoinv.photos import open_photo, to_tensor
from dinoinv.scores import bootstrap_ci
from dinoinv.sources import survey

def mean_ci(values, groups=None):
    "Mean and 95 % interval as text"
    return f"{np.mean(values):.2f} ({', '.join(f'{v:.2f}' for v in bootstrap_ci(values, groups) or ())})"

@torch.no_grad()
def sees(enc, photos, folder):
    "Leave-one-out 5-NN over the photos' classes: right or wrong for each"
    cls = []
    for p in photos:
        x = crop_to_patch(to_tensor(open_photo(folder/p.path)))[:, :504, :504]
        with torch.autocast('cpu', enc.dtype, enabled=enc.dtype is not None):
            cls.append(enc.model(((x-enc.mean)/enc.std)[None]).last_hidden_state[0,0].float())
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
    "PSNR of probes of the final output times a scale, by what the scale is, for one token and for 3×3"
    def tokens(x):
        "Final tokens, and the logarithm of the standard deviation that the last LayerNorm divided them by"
        for o in x.split(16): yield enc.encode(o), enc.encode(o, [enc.n_layers]).std(1, keepdim=True).log()
    (known,wanted),(asked,true) = ([torch.cat(o) for o in zip(*tokens(x))] for x in (train,test))
    portions = lambda *grids: zip(*(o.split(16) for o in grids))
    read = LinearProbe.fit(portions(known, wanted.expand(-1,3,-1,-1)), unit=1)
    guess = lambda f: torch.cat([read(o)[:,:1] for o in f.split(16)])
    said,heard = guess(known),guess(asked)
    agree = [np.corrcoef(a.flatten(), b.flatten())[0,1] for a,b in zip(heard, true)]
    out = {'correlation of the estimate with the true scale, within a patch': agree}
    for reach,probe in enumerate(('linear probe','neighbour probe')):
        for what,a,b in (('as it is',0*said,0*heard), ('times the estimate from the same token',said,heard), ('times the true scale',wanted,true)):
            p = LinearProbe.fit(portions(known*a.exp(), train), reach=reach)
            out[f'{probe}, {what}, dB'] = torch.cat([psnr(p(g), o) for g,o in portions(asked*b.exp(), test)]).tolist()
    return out

@call_parse
def main(photos:str,            # folder of photos, a folder for each class
         pairs:str,             # pairs made of them
         encoder:str='mini',    # any name load_encoder takes
         states:str=None,       # only probes of these hidden states, and of the final output if it is among them
         n:int=480,             # training patches to fit on, at most
         scale:bool=False):     # only probes of final tokens times a scale
    "See the head of this file"
    enc = load_encoder(encoder)
    encs = [enc, control(enc)]
    found = survey(photos, group_by='file').photos
    def patches(split, k=None):
        ds = PairsDataset(pairs, split, None, random=False)
        which = np.linspace(0, len(ds)-1, min(k or len(ds), len(ds))).astype(int)
        which = [i for i in which if ds.sizes[i] == (252,252)]
        return torch.stack([ds[i]['target'] for i in which]).float()/255, [ds.names[i].split('__')[0] for i in which]
    (train,_),(test,groups) = patches('train', n),patches('test')
    print(f"{len(train)} training patches, {len(test)} test patches of {len(set(groups))} photos; {len(found)} photos in {len({p.path.split('/')[0] for p in found})} classes\n")
    print('| | ' + ' | '.join(f'{e.name} ({e.weights})' for e in encs) + ' |\n|---|---|---|')
    def row(name, scores, groups=groups):
        "A line of the table: mean and interval of each encoder's scores"
        print(f'| {name} | ' + ' | '.join(mean_ci(v, groups) for v in scores) + ' |', flush=True)
    if scale:
        found = [scales(e, train, test) for e in encs]
        for k in found[0]: row(k, [f[k] for f in found])
        gap = [a-b for a,b in zip(*(f['neighbour probe, times the estimate from the same token, dB'] for f in found))]
        print(f'\nneighbour probe, times the estimate, {encs[0].name} − {encs[1].name}: {mean_ci(gap, groups)} dB')
        return
    if states:
        for state in states.split(','):
            for reach,probe in enumerate(('linear probe','neighbour probe')):
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
    gap = [a-b for a,b in zip(*scores)]
    print(f'\nfinal output, {encs[0].name} − {encs[1].name}: {mean_ci(gap, groups)} dB')
