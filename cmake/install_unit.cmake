# Run by `cmake --install`: writes qs-zdb.service with the path at which this very run puts the program.
# Comes with QS_UNIT_IN, QS_BIN_DIR and QS_UNIT_DIR; the directories are below the prefix unless they are absolute.
get_filename_component(_prefix "${CMAKE_INSTALL_PREFIX}" ABSOLUTE)
get_filename_component(QS_PROGRAM "${QS_BIN_DIR}/qs" ABSOLUTE BASE_DIR "${_prefix}")
get_filename_component(_unit "${QS_UNIT_DIR}/qs-zdb.service" ABSOLUTE BASE_DIR "${_prefix}")
# What systemd would read as something else.
string(REPLACE "\\" "\\\\" QS_PROGRAM "${QS_PROGRAM}")
string(REPLACE "%" "%%" QS_PROGRAM "${QS_PROGRAM}")
if(QS_PROGRAM MATCHES "[ \t'\"]")
  string(REPLACE "\"" "\\\"" QS_PROGRAM "${QS_PROGRAM}")
  set(QS_PROGRAM "\"${QS_PROGRAM}\"")
endif()
configure_file("${QS_UNIT_IN}" "$ENV{DESTDIR}${_unit}" @ONLY
  FILE_PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
message(STATUS "Installing: $ENV{DESTDIR}${_unit}")
list(APPEND CMAKE_INSTALL_MANIFEST_FILES "${_unit}")
