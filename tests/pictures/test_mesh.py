"""Files of surfaces, read again by hand from their definitions."""

import struct

import numpy as np

from trilemma.pictures.mesh import Mesh, mesh_content

TETRAHEDRON = Mesh(
    np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0.5]], np.float32),
    np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.5], [0.2, 0.4, 1]], np.float32),
    np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)


def test_a_ply_file_holds_each_vertex_with_its_colour_and_each_triangle():
    head, _, body = mesh_content(TETRAHEDRON, "ply").partition(b"end_header\n")
    lines = head.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert "element vertex 4" in lines and "element face 4" in lines
    vertices = list(struct.iter_unpack("<fffBBB", body[: 4 * 15]))
    assert [v[:3] for v in vertices] == [tuple(place) for place in TETRAHEDRON.vertices.tolist()]
    assert [v[3:] for v in vertices] == [(0, 0, 0), (255, 0, 0), (0, 255, 128), (51, 102, 255)]
    faces = list(struct.iter_unpack("<Biii", body[4 * 15 :]))
    assert faces == [(3, *face) for face in TETRAHEDRON.faces.tolist()]


def test_an_obj_file_counts_vertices_from_one():
    lines = mesh_content(TETRAHEDRON, "obj").decode().splitlines()
    assert [line for line in lines if line[0] == "v"][3] == "v 0 0 0.5 0.2 0.4 1"
    assert [line for line in lines if line[0] == "f"] == ["f 1 3 2", "f 1 2 4", "f 1 4 3", "f 2 3 4"]
