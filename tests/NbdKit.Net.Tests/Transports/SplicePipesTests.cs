using NbdKit.Buffers;
using NbdKit.Native;
using NbdKit.Tests.Testing;
using NbdKit.Transports;

namespace NbdKit.Tests.Transports;

[NonParallelizable]
[Platform("Linux")]
public sealed class SplicePipesTests
{
    [Test]
    public void There_are_never_more_than_the_limit_and_empty_ones_come_back()
    {
        using var pipes = new SplicePipes(2);
        SplicePipe first = pipes.TryRent()!;
        SplicePipe? second = pipes.TryRent();
        Assert.That(second, Is.Not.Null);
        Assert.That(pipes.TryRent(), Is.Null);
        pipes.Return(first);
        Assert.That(pipes.TryRent(), Is.SameAs(first));
        pipes.Return(second);
        pipes.Return(first);
    }

    [Test]
    public async Task One_that_holds_what_a_client_did_not_take_is_closed_and_makes_room_for_another()
    {
        using var pipes = new SplicePipes(1);
        using SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
        sockets.Server.SendTimeout = 1;
        LinuxSocket.MakeBlocking(sockets.Server.SafeHandle);
        var loan = new Loan();
        loan.Add(GC.AllocateArray<byte>(16 << 20, pinned: true), 0, 16 << 20);
        SplicePipe pipe = pipes.TryRent()!;
        int position = 0;
        for (int sent; (sent = pipe.Send(sockets.Server.SafeHandle, loan, position)) > 0;)
        {
            position += sent;
        }
        Assert.That(position, Is.InRange(1, 16 << 20));
        Assert.That(pipe.IsEmpty, Is.False);
        pipes.Return(pipe);
        SplicePipe? another = pipes.TryRent();
        Assert.That(another, Is.Not.Null.And.Not.SameAs(pipe));
        Assert.That(another!.IsEmpty, Is.True);
        pipes.Return(another);
    }

    [Test]
    public void A_pipe_that_comes_back_after_the_end_is_closed()
    {
        int before = Directory.GetFileSystemEntries("/proc/self/fd").Length;
        var pipes = new SplicePipes(1);
        SplicePipe pipe = pipes.TryRent()!;
        pipes.Dispose();
        pipes.Return(pipe);
        Assert.That(Directory.GetFileSystemEntries("/proc/self/fd"), Has.Length.LessThanOrEqualTo(before));
    }
}
