using Microsoft.Win32.SafeHandles;
using NbdKit.Buffers;

namespace NbdKit.Plugins;

/// <summary>A file that the host has opened, and keeps.</summary>
internal sealed class HostFile(SafeFileHandle handle)
{
    private readonly FileLoss _loss = new();

    /// <summary>A view of it, which keeps it open until it is disposed of.</summary>
    /// <exception cref="NbdException">The host has closed it, or it cannot be served.</exception>
    public SparseFile Open(bool readOnly, FileOptions hint) => SparseFile.Share(handle, readOnly, hint, _loss);
}
