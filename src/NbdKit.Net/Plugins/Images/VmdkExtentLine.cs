namespace NbdKit.Plugins.Images;

/// <summary>What a descriptor says of one extent.</summary>
/// <param name="CanRead">Whether it may be read.</param>
/// <param name="Size">Its size in bytes.</param>
/// <param name="Kind">How its bytes are stored: <c>FLAT</c>, <c>SPARSE</c>, <c>ZERO</c> and others.</param>
/// <param name="File">The name of its file; empty if it has none.</param>
/// <param name="Offset">Where it begins in its file, in bytes.</param>
internal sealed record VmdkExtentLine(bool CanRead, long Size, string Kind, string File, long Offset);
