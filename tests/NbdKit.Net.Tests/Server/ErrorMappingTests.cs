using NbdKit.Protocol;
using NbdKit.Server;

namespace NbdKit.Tests.Server;

public sealed class ErrorMappingTests
{
    private static readonly CancellationToken Live = CancellationToken.None;
    private static readonly CancellationToken Aborted = new(canceled: true);

    [Test]
    public void An_error_that_a_layer_chose_is_told_with_its_message()
    {
        RequestFault fault = ErrorMapping.ForException(new NbdException(NbdError.NoSpace, "the disk is full"), Live);
        Assert.That(fault, Is.EqualTo(new RequestFault(NbdError.NoSpace, "the disk is full")));
    }

    [Test]
    public void What_else_goes_wrong_gets_a_number_and_no_details()
    {
        Assert.That(ErrorMapping.ForException(new UnauthorizedAccessException("/secret/path"), Live),
            Is.EqualTo(new RequestFault(NbdError.PermissionDenied, "permission denied")));
        Assert.That(ErrorMapping.ForException(new NotSupportedException("secret"), Live),
            Is.EqualTo(new RequestFault(NbdError.NotSupported, "not supported")));
        Assert.That(ErrorMapping.ForException(new OutOfMemoryException("secret"), Live),
            Is.EqualTo(new RequestFault(NbdError.OutOfMemory, "out of memory")));
        foreach (Exception other in new Exception[]
        {
            new IOException("/secret/path"), new InvalidOperationException("secret"), new TimeoutException("secret"),
            new ArgumentException("secret"), new OperationCanceledException("secret"), new AggregateException("secret"),
        })
        {
            Assert.That(ErrorMapping.ForException(other, Live), Is.EqualTo(new RequestFault(NbdError.IoError, "input/output error")));
        }
    }

    [TestCase(28)]
    [TestCase(27)]
    [TestCase(122)]
    [TestCase(unchecked((int)0x80070070))]
    [TestCase(unchecked((int)0x80070027))]
    public void A_full_disk_is_ENOSPC(int hresult)
        => Assert.That(ErrorMapping.ForException(new IOException("full", hresult), Live).Error, Is.EqualTo(NbdError.NoSpace));

    [Test]
    public void What_is_cancelled_because_the_connection_ends_is_ESHUTDOWN()
    {
        Assert.That(ErrorMapping.ForException(new TaskCanceledException(), Aborted).Error, Is.EqualTo(NbdError.Shutdown));
        Assert.That(ErrorMapping.ForException(new IOException(), Aborted).Error, Is.EqualTo(NbdError.IoError));
    }

    [Test]
    public void Answers_and_accidents_are_told_apart()
    {
        Assert.That(ErrorMapping.IsExpected(new NbdException(NbdError.IoError, "x"), Live));
        Assert.That(ErrorMapping.IsExpected(new OperationCanceledException(), Aborted));
        Assert.That(ErrorMapping.IsExpected(new OperationCanceledException(), Live), Is.False);
        Assert.That(ErrorMapping.IsExpected(new IOException(), Aborted), Is.False);
    }

    [Test]
    public void Only_numbers_of_the_protocol_travel_and_two_only_where_they_are_asked_for()
    {
        foreach (NbdError error in Enum.GetValues<NbdError>())
        {
            uint plain = ErrorMapping.ToWire(error, new RequestHeader());
            uint expected = error is NbdError.NotSupported or NbdError.Overflow ? (uint)NbdError.InvalidArgument : (uint)error;
            Assert.That(plain, Is.EqualTo(expected), error.ToString());
        }
        Assert.That(ErrorMapping.ToWire(NbdError.NotSupported, new RequestHeader { Flags = CommandFlags.FastZero }), Is.EqualTo(95));
        Assert.That(ErrorMapping.ToWire(NbdError.Overflow, new RequestHeader { Flags = CommandFlags.DontFragment }), Is.EqualTo(75));
        Assert.That(ErrorMapping.ToWire((NbdError)12345, new RequestHeader()), Is.EqualTo(5));
        Assert.That(ErrorMapping.ToWire(0, new RequestHeader()), Is.EqualTo(5), "a failure is never told as a success");
    }
}
