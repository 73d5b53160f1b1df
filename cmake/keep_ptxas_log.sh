#!/bin/sh
# SPDX-License-Identifier: MIT
#
# keep_ptxas_log.sh COMPILER ARG... -o OBJECT ARG...: runs the compiler. What ptxas says of registers and spills goes to
# OBJECT.ptxas, for scripts/check_gpu_code.py; everything else is shown as ever.
object=
previous=
for word in "$@"; do
  [ "$previous" = -o ] && object=$word
  previous=$word
done
"$@" 2> "$object.stderr"
status=$?
ptxas='^ptxas info|^    [0-9]+ bytes stack frame|^    Function properties|^Compile time'
grep -E "$ptxas" "$object.stderr" > "$object.ptxas"
grep -Ev "$ptxas" "$object.stderr" >&2
rm -f "$object.stderr"
exit $status
