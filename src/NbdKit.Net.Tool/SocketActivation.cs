using System.Globalization;
using System.Net.Sockets;

namespace NbdKit.Tool;

/// <summary>
/// Sockets that already listen, inherited from the process that started this one (systemd, or a libnbd client): from
/// descriptor 3 on, announced in LISTEN_PID and LISTEN_FDS.
/// </summary>
internal static class SocketActivation
{
    private const int FirstDescriptor = 3;
    private const int MaximumCount = 16;

    private static int Count
        => OperatingSystem.IsWindows()
            || Number("LISTEN_PID") != Environment.ProcessId
            || Number("LISTEN_FDS") is not { } count
            ? 0
            : count;

    /// <summary>Whether there are such sockets.</summary>
    /// <param name="options">The options, which must not say where to listen as well.</param>
    /// <exception cref="CommandException">They do, or there are too many sockets.</exception>
    public static bool IsActive(CommandOptions options)
    {
        int count = Count;
        if (count is < 0 or > MaximumCount)
        {
            throw new CommandException($"LISTEN_FDS announces {count} sockets; 1 to {MaximumCount} are supported");
        }
        return count == 0 ? false
            : options.HasTransport || options.Run is not null
                ? throw new CommandException("socket activation does not go together with -U, -p, -i, -s and --run")
            : true;
    }

    /// <summary>Serves the clients of the inherited sockets until the server stops.</summary>
    public static void Accept(NbdServer server, CancellationToken stop)
    {
        int count = Count;
        for (int i = 0; i < count; i++)
        {
            _ = AcceptAsync(server, new Socket(new SafeSocketHandle(FirstDescriptor + i, ownsHandle: true)), stop);
        }
    }

    private static int? Number(string variable)
        => int.TryParse(Environment.GetEnvironmentVariable(variable), CultureInfo.InvariantCulture, out int number)
            ? number
            : null;

    private static async Task AcceptAsync(NbdServer server, Socket listener, CancellationToken stop)
    {
        using (listener)
        {
            while (!stop.IsCancellationRequested)
            {
                try
                {
                    Socket client = await listener.AcceptAsync(stop).ConfigureAwait(false);
                    _ = server.ServeAsync(client, CancellationToken.None);
                }
                catch (OperationCanceledException)
                {
                    return;
                }
                catch (SocketException)
                {
                    // The client left before it was accepted, or descriptors are short; the next may fare better.
                    await Task.Delay(TimeSpan.FromMilliseconds(100), CancellationToken.None).ConfigureAwait(false);
                }
            }
        }
    }
}
