"""Several processes: the same pairs as by one, whoever is killed on the way and whatever machine they are on; training, too.

    python tools/processes.py                  # all of it, a few minutes on two cores
    python tools/processes.py killed machines  # some of it

Each test is a function below; what it checks is its docstring. The processes are started by `torchrun`, on the CPU.
"""
import os; os.environ |= dict(TQDM_DISABLE='1', OMP_NUM_THREADS='1', DINOINV_DEVICE='cpu', HF_HUB_OFFLINE='1')
import json, shutil, subprocess, sys, tempfile, time
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from dinoinv import prepare_pairs, save_textures
from dinoinv.core import LOCK, TMP

root = Path(tempfile.mkdtemp())
photos = root/'photos'
OPTIONS = dict(patch=140, group_by='file', fractions=(.5,.25,.25), batch_size=3, shard_mb=1)
FLAGS = '--encoder mini --patch 140 --group-by file --fractions .5,.25,.25 --batch-size 3 --shard-mb 1'.split()
PREPARE = ('-m', 'dinoinv.commands', 'prepare', photos)
LIMIT = 900 # seconds that a launch may take on a busy machine

def launch(*args, local=('--standalone','--nproc_per_node','2'), before=(), **env):
    "Start `torchrun`, with words such as `ip netns exec NAME` before it"
    program = [*before, sys.executable, '-m', 'torch.distributed.run', *local, *map(str, args)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ|env)

def ended(job):
    "Exit status, output and errors of a launch"
    out,err = job.communicate(timeout=LIMIT)
    return job.returncode, out, err

def files(pairs):
    "All files of the pairs, with their content"
    return {p.relative_to(pairs).as_posix(): p.read_bytes() for p in sorted(pairs.glob('*/**/*')) if p.is_file()}

def alike(a, b):
    "Assert that two folders of pairs hold the same bytes"
    assert a.keys() == b.keys(), sorted(a.keys() ^ b.keys())
    assert not [name for name in a if a[name] != b[name]]

@lru_cache
def by_one(shards=True):
    "What one process makes"
    if not photos.exists(): save_textures(photos, n=16, seed=0, size=140)
    pairs = root/f'by_one_{shards}'
    prepare_pairs(photos, pairs, 'mini', shards=shards, **OPTIONS)
    return files(pairs)

def same():
    "Two processes make what one makes, shards or folders, and one of them says so"
    for shards in (True,False):
        want,pairs = by_one(shards), root/f'by_two_{shards}'
        rc,out,err = ended(launch(*PREPARE, pairs, *FLAGS, *['--shards']*shards))
        assert rc == 0, err
        alike(files(pairs), want)
        assert out.count('16 pairs made now') == 1, out

def killed():
    "A process that is killed ends the others; whole shards stay, and the next run makes the rest"
    want,program,pairs = by_one(), root/'program.py', root/'by_killed'
    program.write_text('import os, signal, sys\nfrom dinoinv import commands, pairs\n'
        'def die(*args): os.kill(os.getpid(), signal.SIGKILL)\n'
        'if os.environ["RANK"] == "1": pairs.write_shard = die\n'
        'commands.dinoinv_prepare(sys.argv[1:])\n')
    rc,out,err = ended(launch(program, photos, pairs, *FLAGS, '--shards'))
    assert rc != 0 and not json.loads((pairs/'meta.json').read_text())['complete']
    left = files(pairs)
    assert all(want[name] == left[name] for name in left if name.endswith('.tar') and TMP not in name)
    rc,out,err = ended(launch(*PREPARE, pairs, *FLAGS, '--shards'))
    assert rc == 0, err
    alike(files(pairs), want)
    assert not [p for p in pairs.rglob('.*') if p.name != LOCK]

def refused():
    "What can't be done is said once, not once for each process"
    by_one()
    rc,out,err = ended(launch(*PREPARE, root/'by_one_True', *FLAGS, '--shards', '--seed', 1))
    assert rc != 0 and err.count('seed: 0 before, 1 now') == 1, err

def ip(*words): return subprocess.run(['ip', *words], capture_output=True).returncode == 0

@contextmanager
def two_machines():
    "An address of the first, and for each what goes before a command and its network interface: two network namespaces, if they can be made"
    names = ['dinoinv0','dinoinv1']
    made = [name for name in names if shutil.which('ip') and ip('netns', 'add', name)]
    try:
        up = made == names and ip('link','add','dnv0','netns',names[0],'type','veth','peer','name','dnv1','netns',names[1])
        for i,name in enumerate(names):
            up = up and ip('-n',name,'addr','add',f'10.201.7.{i+1}/24','dev',f'dnv{i}')
            up = up and ip('-n',name,'link','set',f'dnv{i}','up') and ip('-n',name,'link','set','lo','up')
        if up: yield '10.201.7.1', [(('ip','netns','exec',name), f'dnv{i}') for i,name in enumerate(names)]
        else:
            print('no network namespaces can be made here: two launchers on one machine, over its loopback')
            yield '127.0.0.1', [((),'lo')]*2
    finally:
        for name in made: ip('netns', 'del', name)

def machines():
    "Two machines that share a folder and one network cable make what one process makes"
    want,pairs = by_one(), root/'by_machines'
    with two_machines() as (address,both):
        where = f'--nnodes 2 --master_addr {address} --master_port 29561 --nproc_per_node 1'.split()
        jobs = [launch(*PREPARE, pairs, *FLAGS, '--shards', local=(*where,'--node_rank',str(i)), before=before, GLOO_SOCKET_IFNAME=card)
                for i,(before,card) in enumerate(both)]
        said = [ended(job) for job in jobs]
    assert [rc for rc,*_ in said] == [0,0], said
    alike(files(pairs), want)
    assert said[1][1] == ''

def accelerated():
    "`accelerate launch` makes what one process makes"
    want,pairs = by_one(), root/'by_accelerate'
    program = [sys.executable, *'-m accelerate.commands.launch --cpu --num_processes 2'.split(), *map(str, PREPARE), str(pairs), *FLAGS, '--shards']
    rc,out,err = ended(subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    assert rc == 0, err
    alike(files(pairs), want)

def training():
    "Two processes train on folders, and on shards, each on its own"
    small = '--epochs 1 --width 16 --blocks 1 --batch-size 4 --crop 112 --val-crop 112'.split()
    save_textures(root/'more_photos', n=64, seed=0, size=140)
    for shards in (False,True):
        pairs,run = root/f'more_{shards}', root/f'run_{shards}'
        prepare_pairs(root/'more_photos', pairs, 'mini', shards=shards, **OPTIONS)
        rc,out,err = ended(launch('-m', 'dinoinv.commands', 'train', pairs, run, *small))
        assert rc == 0, err
        assert (run/'best/model.safetensors').exists()
        assert json.loads((run/'config.json').read_text())['processes'] == 2

TESTS = dict(same=same, killed=killed, refused=refused, machines=machines, accelerated=accelerated, training=training)

if __name__ == '__main__':
    for name in sys.argv[1:] or TESTS:
        start = time.time()
        TESTS[name]()
        print(f'{name:<11} passed, {time.time()-start:.0f} s: {TESTS[name].__doc__}', flush=True)
    shutil.rmtree(root)
