using System.IO.Pipes;
using System.Net.Sockets;
using Microsoft.Win32.SafeHandles;

namespace NbdKit.Tool;

/// <summary>Serves one client on the standard input and output.</summary>
internal static class StandardConnection
{
    private const int Input = 0;
    private const int Output = 1;

    public static async Task ServeAsync(NbdServer server, CancellationToken stop)
    {
        Task<NbdDisconnect> connection = SocketOfBoth() is { } socket
            ? server.ServeAsync(socket, CancellationToken.None)
            : server.ServeAsync(
                new DuplexStream(Open(Input, PipeDirection.In), Open(Output, PipeDirection.Out)),
                CancellationToken.None);
        await Task.WhenAny(connection, Task.Delay(Timeout.InfiniteTimeSpan, stop)).ConfigureAwait(false);
        await server.StopAsync(CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>The socket, if the standard input and output are the same one; clients often start servers so.</summary>
    private static Socket? SocketOfBoth()
    {
        if (!OperatingSystem.IsLinux())
        {
            return null;
        }
        string? input = Target(Input);
        return input is not null && input.StartsWith("socket:", StringComparison.Ordinal) && input == Target(Output)
            ? new Socket(new SafeSocketHandle(Input, ownsHandle: true))
            : null;
    }

    private static string? Target(int descriptor)
    {
        try
        {
            return new FileInfo($"/proc/self/fd/{descriptor}").LinkTarget;
        }
        catch (IOException)
        {
            return null;
        }
    }

    /// <summary>A pipe or socket waits without a thread and can be cancelled; a file or terminal cannot.</summary>
    private static Stream Open(int descriptor, PipeDirection direction)
    {
        try
        {
            return new AnonymousPipeClientStream(direction, new SafePipeHandle(descriptor, ownsHandle: true));
        }
        catch (IOException)
        {
            return new FileStream(
                new SafeFileHandle(descriptor, ownsHandle: false),
                direction == PipeDirection.In ? FileAccess.Read : FileAccess.Write,
                bufferSize: 0);
        }
    }
}
