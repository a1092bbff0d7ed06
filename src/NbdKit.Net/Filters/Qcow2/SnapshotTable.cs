using System.Text;
using NbdKit.Layers;

namespace NbdKit.Filters.Qcow2;

/// <summary>Finds an internal snapshot.</summary>
/// <remarks>
/// An entry has at byte 0 the offset of an L1 table (8), at 8 the number of its entries (4), at 12 the length of the snapshot's id
/// (2), at 14 that of its name (2), at 36 the length of what follows at 40 before id and name (4): from there, at 8 the size of the
/// disk (8), if it is long enough. The next entry begins at a multiple of 8 bytes.
/// </remarks>
internal static class SnapshotTable
{
    private const int EntrySize = 40;
    private const int LargestExtra = 1024;
    private const int MostNamed = 16;

    /// <returns>The L1 table of the snapshot that has this id, or else this name, and the size of its disk.</returns>
    /// <exception cref="NbdException">There is none, or the table is damaged.</exception>
    public static async ValueTask<(L1Table L1, long Size)> FindAsync(
        Header header, TablePages tables, long imageSize, string idOrName, CancellationToken cancellationToken)
    {
        (L1Table, long)? byName = null;
        var names = new List<string>();
        byte[] raw = new byte[EntrySize + 16];
        ulong at = header.SnapshotOffset;
        for (uint i = 0; i < header.SnapshotCount; i++)
        {
            Require(at, EntrySize, i, imageSize);
            await tables.ReadAsync(raw.AsMemory(0, EntrySize), (long)at, cancellationToken).ConfigureAwait(false);
            ReadOnlyMemory<byte> entry = raw;
            (int id, int name, uint extra) = (entry.Span.U16(12), entry.Span.U16(14), entry.Span.U32(36));
            if (extra > LargestExtra)
            {
                throw Fault.Damaged($"snapshot {i + 1} has {extra} bytes of extra data");
            }
            Require(at, EntrySize + (int)extra + id + name, i, imageSize);
            long size = header.Size;
            if (extra >= 16)
            {
                await tables.ReadAsync(raw.AsMemory(EntrySize), (long)at + EntrySize, cancellationToken).ConfigureAwait(false);
                size = entry.Span.U64(EntrySize + 8) is <= long.MaxValue and var own
                    ? (long)own
                    : throw Fault.Damaged($"snapshot {i + 1} is of a disk of {entry.Span.U64(EntrySize + 8)} bytes");
            }
            byte[] text = new byte[id + name];
            await tables.ReadAsync(text, (long)at + EntrySize + extra, cancellationToken).ConfigureAwait(false);
            (L1Table, long) found = (new L1Table(entry.Span.U64(0), entry.Span.U32(8)), size);
            if (Encoding.UTF8.GetString(text, 0, id) == idOrName)
            {
                return found;
            }
            string ownName = Encoding.UTF8.GetString(text, id, name);
            if (ownName == idOrName)
            {
                byName ??= found;
            }
            if (names.Count < MostNamed)
            {
                names.Add(ownName);
            }
            at += (uint)((EntrySize + extra + id + name + 7) & ~7L);
        }
        return byName ?? throw Fault.Refused(
            $"the qcow2 image has no snapshot '{idOrName}', but {(names.Count == 0 ? "none" : string.Join(", ", names))}");
    }

    private static void Require(ulong at, int length, uint index, long imageSize)
    {
        if (at > (ulong)imageSize || length > imageSize - (long)at)
        {
            throw Fault.Damaged($"snapshot {index + 1} is at {at}, in an image of {imageSize} bytes");
        }
    }
}
