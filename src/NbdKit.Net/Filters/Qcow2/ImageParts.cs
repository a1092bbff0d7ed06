using NbdKit.Layers;

namespace NbdKit.Filters.Qcow2;

/// <summary>What an image is put together from.</summary>
/// <param name="Header">Its header.</param>
/// <param name="L1">The table of the disk, or of the snapshot, that is served.</param>
/// <param name="Size">The size of that disk in bytes.</param>
/// <param name="File">The file of the image.</param>
/// <param name="Tables">Reads the tables in it.</param>
/// <param name="Own">The file, if it is to be closed with the image.</param>
/// <param name="DataFile">The file that clusters are in, if that is another one; closed with the image.</param>
/// <param name="Backing">The disk below, disposed of with the image; or null.</param>
internal sealed record ImageParts(
    Header Header,
    L1Table L1,
    long Size,
    ImageDisk File,
    TablePages Tables,
    InnerContext? Own,
    InnerContext? DataFile,
    IDisk? Backing);
