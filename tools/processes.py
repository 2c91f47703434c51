"""Several processes: the same shards as by one, whoever is killed on the way and whatever machine they are on; training, too.

    python tools/processes.py                  # all of it, three minutes or so on two cores
    python tools/processes.py killed machines  # some of it

Each test is a function below; what it checks is its docstring. The processes are started by `torchrun`, on the CPU.
"""
import os; os.environ |= dict(TQDM_DISABLE='1', OMP_NUM_THREADS='1', DINOINV_DEVICE='cpu')
import json, shutil, subprocess, sys, tempfile, time
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from dinoinv import prepare_pairs, save_textures

root = Path(tempfile.mkdtemp())
photos = root/'photos'
OPTIONS = dict(patch=140, group_by='file', fractions=(.5,.25,.25), batch_size=3)
FLAGS = '--encoder mini --shards --shard_mb 1 --patch 140 --group_by file --fractions .5,.25,.25 --batch_size 3'.split()
LIMIT = 900 # seconds that a launch may take on a busy machine

def launch(*args, local=('--standalone','--nproc_per_node','2'), before=(), **env):
    "Start `torchrun`, with words such as `ip netns exec NAME` before it"
    program = [*before, sys.executable, '-m', 'torch.distributed.run', *local, *map(str, args)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ|env)

def ended(job):
    "Exit status, output and errors of a launch"
    out,err = job.communicate(timeout=LIMIT)
    return job.returncode, out, err

def files(pairs): return {f'{o.parent.name}/{o.name}': o.read_bytes() for o in sorted(pairs.glob('*/0*'))}

@lru_cache
def by_one():
    "What one process makes"
    save_textures(photos, n=16, seed=0, size=140)
    prepare_pairs(photos, root/'by_one', 'mini', shards=True, shard_mb=1, **OPTIONS)
    return files(root/'by_one')

def same():
    "Two processes make what one makes, and one of them says so"
    want = by_one()
    rc,out,err = ended(launch('-m', 'dinoinv.dataset', photos, root/'by_two', *FLAGS))
    assert rc == 0, err
    assert files(root/'by_two') == want
    assert out.count('16 pairs made now') == 1, out

def killed():
    "A process that is killed ends the others; whole shards stay, and the next run makes the rest"
    want,program,pairs = by_one(),root/'dinoinv_prepare.py',root/'by_killed' # the command knows its name
    program.write_text('import os, signal\nfrom dinoinv import dataset, making\n'
        'def die(*args): os.kill(os.getpid(), signal.SIGKILL)\n'
        'if os.environ["RANK"] == "1": making.write_shard = die\n'
        'dataset.dinoinv_prepare()\n')
    rc,out,err = ended(launch(program, photos, pairs, *FLAGS))
    assert rc != 0 and not json.loads((pairs/'meta.json').read_text())['complete']
    left = {k: b for k,b in files(pairs).items() if k.endswith('.tar')}
    assert all(want[k] == b for k,b in left.items())
    rc,out,err = ended(launch('-m', 'dinoinv.dataset', photos, pairs, *FLAGS))
    assert rc == 0, err
    assert files(pairs) == want
    assert not [o for o in pairs.rglob('.*') if o.name != '.lock']

def refused():
    "What can't be done is said once, not once for each process"
    by_one()
    rc,out,err = ended(launch('-m', 'dinoinv.dataset', photos, root/'by_one', *FLAGS, '--seed', 1))
    said = [line for line in err.splitlines() if line.startswith('dinoinv_prepare:')]
    assert rc != 0 and len(said) == 1 and 'seed: 0 before, 1 now' in said[0], err

def ip(*words): return subprocess.run(['ip', *words], capture_output=True).returncode == 0

@contextmanager
def two_machines():
    "An address of the first, and for each what goes before a command and its network interface: two network namespaces, if they can be made"
    names = [f'dinoinv{i}' for i in (0,1)]
    made = [shutil.which('ip') and ip('netns', 'add', k) for k in names]
    try:
        cable = all(made) and ip('link','add','dnv0','netns',names[0],'type','veth','peer','name','dnv1','netns',names[1])
        up = cable and all([ip('-n',k,'addr','add',f'10.201.7.{i+1}/24','dev',f'dnv{i}') and ip('-n',k,'link','set',f'dnv{i}','up')
                            and ip('-n',k,'link','set','lo','up') for i,k in enumerate(names)])
        if not up: print('no network namespaces can be made here: two launchers on one machine, over its loopback')
        yield ('10.201.7.1', [(('ip','netns','exec',k), f'dnv{i}') for i,k in enumerate(names)]) if up else ('127.0.0.1', [((),'lo')]*2)
    finally:
        for k,there in zip(names, made): there and ip('netns', 'del', k)

def machines():
    "Two machines that share a folder and one network cable make what one process makes"
    want,pairs = by_one(),root/'by_machines'
    with two_machines() as (address,both):
        where = f'--nnodes 2 --master_addr {address} --master_port 29561 --nproc_per_node 1'.split()
        jobs = [launch('-m', 'dinoinv.dataset', photos, pairs, *FLAGS, local=(*where,'--node_rank',str(i)), before=before, GLOO_SOCKET_IFNAME=card)
                for i,(before,card) in enumerate(both)]
        said = [ended(o) for o in jobs]
    assert [o[0] for o in said] == [0,0], said
    assert files(pairs) == want and said[1][1] == ''

def accelerated():
    "`accelerate launch` makes what one process makes"
    want,pairs = by_one(),root/'by_accelerate'
    command = 'accelerate.commands.launch --cpu --num_processes 2 -m dinoinv.dataset'.split()
    program = [sys.executable, '-m', *command, str(photos), str(pairs), *FLAGS]
    job = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rc,out,err = ended(job)
    assert rc == 0 and files(pairs) == want, err

def train(pairs, run, *args):
    "Train by two processes; return what the run noted of itself"
    small = '--epochs 1 --width 16 --blocks 1 --batch_size 4 --crop 112 --val_crop 112'.split()
    rc,out,err = ended(launch('-m', 'dinoinv.train', pairs, root/run, *small, *args))
    assert rc == 0, err
    assert (root/run/'best/model.safetensors').exists()
    return json.loads((root/run/'config.json').read_text())

def training():
    "Two processes train on shards"
    by_one()
    assert train(root/'by_one', 'run')['processes'] == 2

def in_order():
    "Two processes train shard by shard, each on its own shards"
    save_textures(root/'more_photos', n=64, seed=0, size=140)
    prepare_pairs(root/'more_photos', root/'more', 'mini', shards=True, shard_mb=1, **OPTIONS)
    assert train(root/'more', 'in_order', '--shuffle_buffer', '4')['config']['shuffle_buffer'] == 4

TESTS = dict(same=same, killed=killed, refused=refused, machines=machines,
             accelerated=accelerated, training=training, in_order=in_order)

if __name__ == '__main__':
    for name in sys.argv[1:] or TESTS:
        start = time.time()
        TESTS[name]()
        print(f'{name:<10} passed, {time.time()-start:.0f} s: {TESTS[name].__doc__}', flush=True)
