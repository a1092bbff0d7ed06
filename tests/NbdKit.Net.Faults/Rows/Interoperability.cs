using NbdKit.Faults.FileSystems;
using NbdKit.Faults.Interop;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>Every pair of our server and a client of others, and of our client and a server of others, in plain text and TLS, by TCP and Unix.</summary>
internal sealed class Interoperability : Fault
{
    private readonly List<string> _failed = [];
    private readonly List<string> _left = [];
    private int _passed;

    public override string Id => "F22";

    public override string Title => "interoperability";

    public override async Task<string> RunAsync(FaultRun run)
    {
        foreach (bool isTls in new[] { false, true })
        {
            foreach (SocketKind socket in Enum.GetValues<SocketKind>())
            {
                foreach ((string name, Func<ServedSession, Task> session, Func<SocketKind, bool, string?> reason) in ServedPrograms.All)
                {
                    await PairAsync($"our server and {name}", socket, isTls, name, reason(socket, isTls), async () =>
                    {
                        await using ServedSession served = await ServedSession.StartAsync(socket, isTls, run.Seed);
                        await session(served);
                    });
                }
                foreach (string name in ServingPrograms.Names)
                {
                    await PairAsync($"our client and {name}", socket, isTls, name, null, () => ServingPrograms.RunAsync(name, socket, isTls));
                }
            }
        }
        if (_passed == 0)
        {
            throw new FaultSkippedException(string.Join("; ", _left));
        }
        return _failed.Count == 0
            ? $"{_passed} pairs; {_left.Count} left out{string.Concat(_left.Select(each => "\n      " + each))}\n     "
            : throw new InvalidOperationException($"{_failed.Count} pairs of {_passed + _failed.Count} failed:\n{string.Join('\n', _failed)}");
    }

    private async Task PairAsync(string pair, SocketKind socket, bool isTls, string program, string? reason, Func<Task> session)
    {
        string what = $"{pair}, {(isTls ? "TLS" : "plain")}, {socket}";
        reason ??= FileSystem.Has(program) ? null : $"{program} is not installed";
        if (reason is not null)
        {
            _left.Add($"{what}: {reason}");
            return;
        }
        try
        {
            await session();
            _passed++;
        }
        catch (Exception e)
        {
            _failed.Add($"{what}: {e}");
        }
    }
}
