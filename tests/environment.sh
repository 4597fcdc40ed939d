# Sourced by ./examples/run and ./tests/run: a virtual environment in the checkout.
#
#   environment NAME EXTRAS [PIP OPTION]...
#
# installs the checkout with these extras into .venv-NAME-VERSION and leaves its
# folder in $venv. PYTHON names the interpreter, python3 unless it is set.

environment() {
	local name=$1 extras=$2 python=${PYTHON:-python3} version
	shift 2
	version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	venv=$PWD/.venv-$name-$version
	# Without pip it is what an interrupted run left behind.
	if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
		rm -rf "$venv"
		"$python" -m venv "$venv"
	fi
	echo "Installing into $(basename "$venv") ..."
	"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ".[$extras]"
	PATH=$venv/bin:$PATH
}
