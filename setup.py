import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(interpolation=None)
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
lib = cfg['lib_name']

# Outside the repo, as on PyPI, the README's figures and notebooks are only reachable on the web.
readme = (here/'README.md').read_text(encoding='utf-8') if (here/'README.md').exists() else ''
web = f"{cfg['git_url']}/raw/{cfg['branch']}"
readme = re.sub(r'(\]\(|src=")(?=nbs/)', rf'\1{web}/', readme)

setup(
    name=lib, version=cfg['version'], description=cfg['description'],
    long_description=readme, long_description_content_type='text/markdown',
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'],
    project_urls={'Documentation': cfg['doc_host'] + cfg['doc_baseurl']},
    license='Apache-2.0', license_files=['LICENSE'], keywords=cfg['keywords'],
    classifiers=['Development Status :: 3 - Alpha', f"Intended Audience :: {cfg['audience']}", 'Programming Language :: Python :: 3'],
    packages=find_packages(include=[lib, f'{lib}.*']), include_package_data=True, zip_safe=False,
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(),
    extras_require={k.removesuffix('_requirements'): v.split() for k,v in cfg.items() if k.endswith('_requirements')},
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': [f'{lib}={lib}._modidx:d']},
)
