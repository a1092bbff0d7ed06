namespace NbdKit.Plugins.Fat;

/// <summary>
/// A part of the disk that is all of one kind: stored bytes, a file, entries of an allocation table, or none of them, which is
/// zeroes.
/// </summary>
/// <param name="Start">Its first byte.</param>
/// <param name="End">The byte after it.</param>
/// <param name="Bytes">What it is, if that is stored.</param>
/// <param name="File">The file whose content it is.</param>
/// <param name="IsTable">Whether it is the used part of an allocation table.</param>
internal readonly record struct FatRun(long Start, long End, byte[]? Bytes = null, FatNode? File = null, bool IsTable = false)
{
    public bool IsZero => Bytes is null && File is null && !IsTable;
}
