using System.Diagnostics;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace NbdKit.Native;

/// <summary>A process of which is only wanted to know whether it has ended.</summary>
internal sealed class WatchedProcess
{
    private const int NoSuchProcess = 3;

    // On Linux this stays the file of this very process, even if another one gets its id.
    private readonly SafeFileHandle? _status;
    private readonly Process? _process;

    /// <exception cref="ArgumentException">There is no such process.</exception>
    public WatchedProcess(int processId)
    {
        try
        {
            if (OperatingSystem.IsLinux())
            {
                _status = File.OpenHandle($"/proc/{processId}/stat", options: FileOptions.None);
            }
            else
            {
                _process = Process.GetProcessById(processId);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw new ArgumentException($"There is no process {processId}, or it cannot be watched.", nameof(processId), e);
        }
    }

    public bool HasEnded()
    {
        if (_status is null)
        {
            return _process!.HasExited;
        }
        Span<byte> text = stackalloc byte[256];
        try
        {
            text = text[..RandomAccess.Read(_status, text, 0)];
        }
        catch (IOException e) when (e.HResult == NoSuchProcess)
        {
            return true;
        }
        // "pid (name) state …", and the name may be anything. Z and X have ended, whoever has not noticed yet.
        int name = text.LastIndexOf((byte)')');
        string state = name < 0 ? "" : Encoding.ASCII.GetString(text[(name + 1)..]).TrimStart();
        return text.IsEmpty || state.StartsWith('Z') || state.StartsWith('X');
    }
}
